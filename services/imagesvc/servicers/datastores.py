"""DatastoreService. Authenticated and authorised by the api; answered on the leader, reads on a standby too."""

from __future__ import annotations

from moln.image.v1 import datastore_service_pb2 as pb
from moln.image.v1 import datastore_service_pb2_grpc
from moln.image.v1.image_pb2 import Datastore
from services.common.resources.front import Front
from services.imagesvc.usecases.datastores import Datastores


class DatastoreServicer(datastore_service_pb2_grpc.DatastoreServiceServicer):
    """A line or two per RPC."""

    def __init__(self, front: Front, datastores: Datastores) -> None:
        self._front = front
        self._datastores = datastores

    async def CreateDatastore(self, request: pb.CreateDatastoreRequest, context: object) -> Datastore:
        return await self._datastores.create(request, *await self._front.writer())

    async def GetDatastore(self, request: pb.GetDatastoreRequest, context: object) -> Datastore:
        await self._front.reader()
        return self._datastores.get(request.id)

    async def ListDatastores(self, request: pb.ListDatastoresRequest, context: object) -> pb.ListDatastoresResponse:
        await self._front.reader()
        return self._datastores.list(request)

    async def DeleteDatastore(self, request: pb.DeleteDatastoreRequest, context: object) -> pb.DeleteDatastoreResponse:
        _, leadership = await self._front.writer()
        await self._datastores.delete(request.id, leadership)
        return pb.DeleteDatastoreResponse()
