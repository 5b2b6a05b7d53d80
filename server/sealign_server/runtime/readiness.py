"""What gRPC's health service says of a silo: whether it lives, whether it is ready, and of each task by name.

=============================  ============================================
service                        SERVING while
=============================  ============================================
""                             the process serves
sealign.v1.Silo                a task of either kind can be served: readiness
sealign.v1.Alignment           the process serves
sealign.v1.Classification      a classification task can be served
sealign.v1.Classification/T    classification task T can be served
sealign.v1.Generation          a generation task can be served
sealign.v1.Generation/T        generation task T can be served
=============================  ============================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from grpc_health.v1 import health, health_pb2

from sealign.errors import SealignError
from sealign_server.rpc.server import SERVICES
from sealign_server.serving import Silo

_log = structlog.get_logger()

LIVENESS = ""
READINESS, ALIGNMENT, CLASSIFICATION, GENERATION = SERVICES
_SECONDS = 1.0
_Status = health_pb2.HealthCheckResponse


class Readiness:
    """Keeps the health service true to what the silo's directory holds.

    Args:
        silo: whose tasks are looked at.
        status: the health service.
    """

    def __init__(self, silo: Silo, status: health.aio.HealthServicer) -> None:
        self._silo = silo
        self._status = status
        self._told: dict[str, str | None] = {}
        self._set: dict[str, int] = {}

    async def begin(self) -> None:
        """Say what holds before the first call: the process lives, and some classification tasks can be served."""
        for name in (LIVENESS, ALIGNMENT):
            await self._say(name, _Status.SERVING)
        await asyncio.to_thread(self._silo.look_at_tasks)
        await self._publish()

    async def keep_true(self) -> None:
        """Look every second for tasks that come, go, are damaged or mended; never returns."""
        while True:
            try:
                await asyncio.to_thread(self._silo.look_at_tasks)
                await self._publish()
                await self._silo.long.do("", self._silo.look_at_generation)
                await self._publish()
            except SealignError as error:
                _log.error("tasks not looked at", reason=str(error))
            await asyncio.sleep(_SECONDS)

    async def _publish(self) -> None:
        states = self._silo.states
        for service, of in ((CLASSIFICATION, states.tasks), (GENERATION, states.generation_tasks)):
            await self._publish_tasks(service, of)
            await self._say(service, _Status.SERVING if None in of.values() else _Status.NOT_SERVING)
        await self._say(READINESS, _Status.SERVING if states.is_ready else _Status.NOT_SERVING)

    async def _publish_tasks(self, service: str, states: Mapping[str, str | None]) -> None:
        for name, reason in states.items():
            named = f"{service}/{name}"
            if self._told.get(named) != reason:
                _log.error("task cannot be served", task=name, service=service, reason=reason) if reason else _log.info(
                    "task can be served again", task=name, service=service
                )
            self._told[named] = reason
            await self._say(named, _Status.NOT_SERVING if reason else _Status.SERVING)
        prefix = f"{service}/"
        gone = [told for told in self._told if told.startswith(prefix) and told.removeprefix(prefix) not in states]
        for named in gone:
            del self._told[named]
            await self._say(named, _Status.SERVICE_UNKNOWN)

    async def _say(self, service: str, state: int) -> None:
        if self._set.get(service) != state:
            self._set[service] = state
            await self._status.set(service, state)
