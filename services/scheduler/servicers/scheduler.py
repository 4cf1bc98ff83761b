"""SchedulerService: where a VM could go and why not elsewhere; checks of expressions. Answers on the leader only."""

from __future__ import annotations

from typing import Protocol

from moln.compute.v1 import vm_pb2
from moln.scheduler.v1 import scheduler_service_pb2 as pb
from moln.scheduler.v1 import scheduler_service_pb2_grpc
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.expressions import Kind, parse
from services.common.rpc import current_call
from services.common.store import Store
from services.scheduler.core.devices import grant_of
from services.scheduler.core.explanation import Explanation, explain
from services.scheduler.core.ledger import Ledger
from services.scheduler.core.shapes import held, shape, shape_key
from services.scheduler.core.words import unknown_attributes, unknown_words
from services.scheduler.stored import stored

LEADER = "scheduler"
DEFAULT_CANDIDATES = 5
MAX_CANDIDATES = 1000
WAIT_SECONDS = 5.0


class Leads(Protocol):
    """What places VMs in this process: its ledger is there while it leads."""

    @property
    def ledger(self) -> Ledger | None: ...


class SchedulerServicer(scheduler_service_pb2_grpc.SchedulerServiceServicer):
    """Answers from the leader's ledger and the cache."""

    def __init__(self, store: Store, placement: Leads) -> None:
        self._store = store
        self._placement = placement

    async def ExplainVm(self, request: pb.ExplainVmRequest, context: object) -> pb.ExplainVmResponse:
        ledger = await self._ready()
        parts = self._store.cache.object("vm", request.id)
        spec = stored(parts.get("spec"), vm_pb2.VmSpec)
        if spec is None or not _caller().may_see(spec.owner_id):
            raise MolnError(Reason.VM_NOT_FOUND, f"there is no VM {request.id}; `moln vm list` shows those there are")
        most = min(request.max_candidates or DEFAULT_CANDIDATES, MAX_CANDIDATES)
        intent = stored(parts.get("intent"), vm_pb2.VmIntent) or vm_pb2.VmIntent()
        placement = stored(parts.get("placement"), vm_pb2.VmPlacement) or vm_pb2.VmPlacement()
        wish = shape(shape_key(spec.template, intent.wanted_host_id))
        grant = grant_of(placement.granted)
        return _response(explain(ledger.columns, wish, most, placement.host_id, held(placement), grant))

    async def CheckExpression(self, request: pb.CheckExpressionRequest, context: object) -> pb.CheckExpressionResponse:
        ledger = await self._ready()
        requirement = parse(request.requirement, Kind.REQUIREMENT, "requirement")
        rank = parse(request.rank, Kind.RANK, "rank")
        unknown = unknown_attributes(ledger.columns, requirement.attributes | rank.attributes)
        warnings = unknown_words(ledger.columns, unknown)
        return pb.CheckExpressionResponse(unknown_attributes=unknown, warnings=warnings)

    async def _ready(self) -> Ledger:
        """The ledger, as new as the caller asks for; NOT_LEADER on a standby."""
        cache = self._store.cache
        cache.check_fresh()
        wanted = current_call().header("moln-min-revision")
        if wanted.isdecimal():
            await cache.wait(int(wanted), WAIT_SECONDS)
        ledger = self._placement.ledger
        if ledger is None:
            leader = self._store.leader_address(LEADER) or "nowhere yet"
            raise MolnError(Reason.NOT_LEADER, f"this scheduler stands by; the one that decides is at {leader}")
        current_call().add_trailer("moln-revision", str(cache.revision))
        return ledger


def _caller() -> Caller:
    sent = {name: value for name, value in current_call().metadata if isinstance(value, str)}
    return Caller.from_metadata(sent)


def _response(found: Explanation) -> pb.ExplainVmResponse:
    return pb.ExplainVmResponse(
        reason=found.why.reason,
        message=found.why.message,
        hosts=found.hosts,
        filters=[pb.FilterResult(name=left.name, hosts_left=left.hosts) for left in found.filters],
        candidates=[
            pb.Candidate(
                host_id=each.host_id,
                host=each.name,
                score=each.score,
                parts=[pb.ScorePart(name=part.name, weight=part.weight, value=part.value) for part in each.parts],
            )
            for each in found.candidates
        ],
        unknown_attributes=found.unknown_attributes,
    )
