"""The Silo service."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sealign.app.frame import Call
from sealign.protocol import Limits, SiloCard
from sealign.protocol.conversions.silo import silo_to_wire
from sealign.protocol.signing import sign_card
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloServicer
from sealign_server import __version__
from sealign_server.access import Bench, Policies, Share
from sealign_server.serving import Silo
from sealign_server.settings import CallLimits
from sealign_server.store import SigningKeys


class SiloHandlers(SiloServicer):
    """What the silo is, and who is calling it."""

    def __init__(self, silo: Silo, bench: Bench, policies: Policies, limits: CallLimits, keys: SigningKeys) -> None:
        self._silo = silo
        self._keys = keys
        self._bench = bench
        self._policies = policies
        self._limits = limits

    async def Describe(self, request: pb.DescribeRequest, call: Call) -> pb.SiloCard:  # type: ignore[override]  # noqa: N802
        """Spaces and tasks by name, and what the caller may ask for."""
        with self._bench.admitted(Share.LOOKUP, call.identity, call.remaining) as room:
            return await room.do(lambda: self._signed(self._card(call.identity), request))

    def _signed(self, card: SiloCard, request: pb.DescribeRequest) -> pb.SiloCard:
        message = silo_to_wire(card, self._keys.changes)
        sign_card(message, request, self._keys)
        return message

    def _card(self, identity: str) -> SiloCard:
        silo, tier = self._silo, self._policies.current.tier_of(identity)
        return SiloCard(
            name=silo.name,
            version=__version__,
            identity=identity,
            spaces=tuple(filter(tier.allows_space, silo.spaces())),
            tasks=tuple(filter(tier.allows_task, silo.classification.names())),
            generation_tasks=tuple(filter(tier.allows_generation, silo.generation.names())),
            limits=Limits(
                rows_per_request=min(tier.max_rows, self._limits.rows_per_request),
                rows_per_day=tier.rows_per_day,
                may_align=tier.may_align,
                shares_examples=tier.shared_examples and silo.shares_examples,
            ),
            faulty_tasks=_faulty(silo.states.tasks, tier.allows_task),
            faulty_generation_tasks=_faulty(silo.states.generation_tasks, tier.allows_generation),
        )


def _faulty(states: Mapping[str, str | None], allows: Callable[[str], bool]) -> tuple[str, ...]:
    return tuple(name for name, reason in states.items() if reason is not None and allows(name))
