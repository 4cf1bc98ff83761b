"""The calls of etcd that the library uses. Thin: messages in, messages out, a deadline on each, errors named.

It repeats nothing by itself but a call whose token had run out: whether a call may be repeated is for callers to know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store.errors import Refused, StoreUnavailable
from services.common.store.etcd.endpoints import target_of
from services.common.store.settings import StoreSettings

Answer_co = TypeVar("Answer_co", covariant=True, bound=Message)
A = TypeVar("A", bound=Message)

MAYBE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    }
)
"""Codes after which nobody knows whether the request took effect, or still will."""

Metadata = tuple[tuple[str, str], ...]
LEADER_WANTED = ("hasleader", "true")
"""Ends a stream at a member that has lost the others, so that it is begun again at one that has not."""


class Call(Protocol[Answer_co]):
    """One method of etcd."""

    async def __call__(self, request: bytes, timeout: float | None = None) -> Answer_co:
        """Sends the bytes of a request; StoreUnavailable (may have happened) or Refused."""
        ...


class Stream(Generic[A]):
    """A stream in both directions."""

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, A]) -> None:
        self._call = call

    async def send(self, request: bytes) -> None:
        """Sends one message."""
        await self._call.write(request)

    async def receive(self) -> A:
        """The next message; StoreUnavailable at the end of the stream."""
        answer = await self._call.read()
        if not isinstance(answer, Message):
            raise StoreUnavailable("etcd ended the stream", may_have_happened=True)
        return cast(A, answer)


class EtcdClient:
    """A connection to one etcd, of one or several members. Make it by `EtcdClient.connect`, end it by `close`."""

    def __init__(self, channel: grpc.aio.Channel, settings: StoreSettings) -> None:
        self._channel = channel
        self._settings = settings
        self._token: Metadata = ()
        self.range = self._unary("/etcdserverpb.KV/Range", pb.RangeResponse)
        self.txn = self._unary("/etcdserverpb.KV/Txn", pb.TxnResponse)
        self.compact = self._unary("/etcdserverpb.KV/Compact", pb.CompactionResponse)
        self.lease_grant = self._unary("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse)
        self.lease_revoke = self._unary("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse)
        self.status = self._unary("/etcdserverpb.Maintenance/Status", pb.StatusResponse)
        self.alarm = self._unary("/etcdserverpb.Maintenance/Alarm", pb.AlarmResponse)
        self.defragment = self._unary("/etcdserverpb.Maintenance/Defragment", pb.DefragmentResponse)
        self._authenticate = self._unary("/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse)

    @staticmethod
    async def connect(settings: StoreSettings) -> EtcdClient:
        """A client of the settings' endpoints. Nothing is sent yet; ValueError for endpoints that mean nothing."""
        target, options = await target_of(settings.endpoints)
        if settings.ca_file is None:
            return EtcdClient(grpc.aio.insecure_channel(target, options=options), settings)
        credentials = grpc.ssl_channel_credentials(
            settings.ca_file.read_bytes(),
            settings.key_file.read_bytes() if settings.key_file else None,
            settings.cert_file.read_bytes() if settings.cert_file else None,
        )
        return EtcdClient(grpc.aio.secure_channel(target, credentials, options=options), settings)

    async def close(self) -> None:
        """Ends the connection and every call on it."""
        await self._channel.close()

    async def keep_alive(self, lease: int) -> int:
        """Renews a lease; returns its time to live in seconds, 0 where it has ended."""
        request = pb.LeaseKeepAliveRequest(id=lease)
        async with self._stream("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse) as stream:
            await stream.send(request.SerializeToString())
            answer = await stream.receive()
            return answer.ttl

    @asynccontextmanager
    async def watch(self, request: pb.WatchCreateRequest) -> AsyncIterator[Stream[pb.WatchResponse]]:
        """Begins a watch; receive() gives what etcd sends, piece by piece. Ends with the block."""
        async with self._stream("/etcdserverpb.Watch/Watch", pb.WatchResponse, deadline=False) as stream:
            await stream.send(pb.WatchRequest(create_request=request).SerializeToString())
            yield stream

    def _unary(self, path: str, answer: type[A]) -> Call[A]:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, A] = self._channel.unary_unary(
            path, request_serializer=None, response_deserializer=answer.FromString
        )
        limit = self._settings.call_timeout

        async def call(request: bytes, timeout: float | None = None) -> A:
            try:
                return await method(request, timeout=timeout or limit, metadata=self._token)
            except grpc.aio.AioRpcError as err:
                if not await self._token_renewed(err):
                    raise named(err) from err
            try:
                return await method(request, timeout=timeout or limit, metadata=self._token)
            except grpc.aio.AioRpcError as err:
                raise named(err) from err

        return call

    async def _token_renewed(self, err: grpc.aio.AioRpcError) -> bool:
        """Whether the call failed for want of a token, and there is a new one now."""
        said = err.details() or ""
        if not self._settings.user or not any(
            word in said for word in ("auth token", "user name is empty", "auth store")
        ):
            return False
        await self.authenticate()
        return True

    async def authenticate(self) -> None:
        """Asks for a token where the settings name a user; Refused for a wrong name or password."""
        if not self._settings.user:
            return
        self._token = ()
        request = pb.AuthenticateRequest(name=self._settings.user, password=self._settings.password)
        answer = await self._authenticate(request.SerializeToString())
        self._token = (("token", answer.token),)

    @asynccontextmanager
    async def _stream(self, path: str, answer: type[A], *, deadline: bool = True) -> AsyncIterator[Stream[A]]:
        method: grpc.aio.StreamStreamMultiCallable[bytes, A] = self._channel.stream_stream(
            path, request_serializer=None, response_deserializer=answer.FromString
        )
        limit = self._settings.call_timeout if deadline else None
        call = method(timeout=limit, metadata=(*self._token, LEADER_WANTED))
        try:
            yield Stream(call)
        except grpc.aio.AioRpcError as err:
            await self._token_renewed(err)
            raise named(err) from err
        finally:
            call.cancel()


def named(err: grpc.aio.AioRpcError) -> StoreUnavailable | Refused:
    """What the failure of a call means."""
    code, said = err.code(), err.details() or "no details"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "too many requests" in said:
        return StoreUnavailable(f"etcd is overloaded: {said}")
    if code in MAYBE:
        return StoreUnavailable(f"etcd does not answer: {said} ({code.name})", may_have_happened=True)
    return Refused(code.name, said)
