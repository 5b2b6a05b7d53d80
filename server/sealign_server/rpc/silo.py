"""The Silo service."""

from __future__ import annotations

from sealign.app.frame import Call
from sealign.protocol import Limits, SiloCard
from sealign.protocol.conversions.silo import silo_to_wire
from sealign.protocol.v1 import silo_pb2 as pb
from sealign.protocol.v1.silo_pb2_grpc import SiloServicer
from sealign_server import __version__
from sealign_server.access import Bench, Permissions, Share
from sealign_server.serving import Silo
from sealign_server.settings import CallLimits


class SiloHandlers(SiloServicer):
    """What the silo is, and who is calling it."""

    def __init__(self, silo: Silo, bench: Bench, permissions: Permissions, limits: CallLimits) -> None:
        self._silo = silo
        self._bench = bench
        self._permissions = permissions
        self._limits = limits

    async def Describe(self, request: pb.DescribeRequest, call: Call) -> pb.SiloCard:  # type: ignore[override]  # noqa: N802
        """Spaces and tasks by name, and what the caller may ask for."""
        del request
        with self._bench.admitted(Share.LOOKUP, call.identity, call.remaining) as room:
            return await room.do(lambda: silo_to_wire(self._card(call.identity)))

    def _card(self, identity: str) -> SiloCard:
        silo = self._silo
        return SiloCard(
            name=silo.name,
            version=__version__,
            identity=identity,
            spaces=silo.spaces(),
            tasks=tuple(silo.classification.names()),
            generation_tasks=tuple(silo.generation.names()),
            limits=Limits(
                rows_per_request=self._limits.rows_per_request,
                rows_per_day=self._limits.rows_per_day,
                may_align=self._permissions.may_align(identity),
                shares_examples=self._permissions.may_read_examples(identity),
            ),
        )
