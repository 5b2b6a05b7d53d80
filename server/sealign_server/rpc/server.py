"""The services of a silo on one gRPC server, inside the frame."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import grpc
import structlog

from sealign.app.frame import Frame, FrameLimits
from sealign.errors import StorageError
from sealign.protocol.v1 import alignment_pb2, classification_pb2, generation_pb2, silo_pb2
from sealign.protocol.v1.alignment_pb2_grpc import add_AlignmentServicer_to_server
from sealign.protocol.v1.classification_pb2_grpc import add_ClassificationServicer_to_server
from sealign.protocol.v1.generation_pb2_grpc import add_GenerationServicer_to_server
from sealign.protocol.v1.silo_pb2_grpc import add_SiloServicer_to_server
from sealign_server.access import Allowance, AuditLayer, Bench, Identities, Policies, Rates, RowAccounts
from sealign_server.ledger import Ledger, Usage
from sealign_server.observe import Metrics, MetricsLayer, RecordLayer, TraceLayer
from sealign_server.rpc.alignment import AlignmentHandlers
from sealign_server.rpc.callers import CallersLayer
from sealign_server.rpc.classification import ClassificationHandlers
from sealign_server.rpc.generation import GenerationHandlers
from sealign_server.rpc.layers import DrainLayer, IdentityLayer, PolicyLayer, RateLayer, StreamsLayer
from sealign_server.rpc.queries import Queries
from sealign_server.rpc.silo import SiloHandlers
from sealign_server.serving import PublicKeys, Silo
from sealign_server.settings import CallLimits, ServingOptions
from sealign_server.store import AuditTrail, SigningKeys

_log = structlog.get_logger()

SERVICES = tuple(
    next(iter(module.DESCRIPTOR.services_by_name.values())).full_name
    for module in (silo_pb2, alignment_pb2, classification_pb2, generation_pb2)
)
MAX_MESSAGE_BYTES = 32 << 20
_SMALL = 1 << 13
_STREAMS = ("Align", "AlignEncrypted", "ClassifyStream", "NextToken", "FetchTokenizer")
_MESSAGE_BYTES: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("Describe", "DescribeSpace", "DescribeTasks", "DescribeGeneration"), _SMALL),
        **dict.fromkeys(("FetchTokenizer", "SharedExamples"), _SMALL),
        "Align": (4 << 20) + _SMALL,
        "NextToken": 8 << 20,
    }
)


@dataclass(frozen=True)
class Guards:
    """What stands between callers and the silo, in one process.

    Attributes:
        ledger: what is counted.
        trail: records what callers do.
        keys: sign cards.
        identities: who may call.
        policies: what each may do.
        rates: how often.
        metrics: counts and times; None for none.
        traces: spans of calls; None for none.
    """

    ledger: Ledger
    trail: AuditTrail
    keys: SigningKeys
    identities: Identities
    policies: Policies
    rates: Rates
    metrics: Metrics | None = None
    traces: TraceLayer | None = None


class Service:
    """All that one process serves, and what is done about it from outside: start, drain, stop.

    Args:
        silo: what is served.
        guards: stand before it.
        options: how heads and maps are served.
        limits: of the callers.
    """

    def __init__(self, silo: Silo, guards: Guards, options: ServingOptions, limits: CallLimits) -> None:
        self.silo = silo
        self._metrics = guards.metrics
        self._trail = guards.trail
        self._signing = guards.keys
        self.bench = Bench(limits.concurrent)
        self.keys = PublicKeys(limits.key_bytes, limits.zeros_per_key)
        self.accounts = RowAccounts(Usage(guards.ledger), self._allowance)
        self.audit = AuditLayer(guards.trail)
        self.drain = DrainLayer()
        self.callers = CallersLayer()
        self._identities, self._policies = guards.identities, guards.policies
        self._options = options
        self._limits = limits
        self._traces = guards.traces
        layers = [
            *([] if guards.traces is None else [guards.traces]),
            *([] if guards.metrics is None else [MetricsLayer(guards.metrics)]),
            self.callers,
            RecordLayer(),
            self.audit,
            IdentityLayer(guards.identities),
            self.drain,
            RateLayer(guards.rates),
            PolicyLayer(guards.policies, silo.base_of),
            StreamsLayer(_STREAMS, limits.streams),
        ]
        frame_limits = FrameLimits(
            message_seconds=limits.message_seconds, idle_seconds=limits.idle_seconds, message_bytes=_MESSAGE_BYTES
        )
        self.frame = Frame(SERVICES, layers, frame_limits)

    def add_to(self, server: Any) -> None:
        """Register the handlers with a gRPC server."""
        silo, options = self.silo, self._options
        queries = Queries(self.keys, self.accounts, self.bench, options.security_table)
        keys, policies = self._signing, self._policies
        add_SiloServicer_to_server(SiloHandlers(silo, self.bench, policies, self._limits, keys), server)
        add_AlignmentServicer_to_server(AlignmentHandlers(silo, self.bench, options, keys), server)
        add_ClassificationServicer_to_server(ClassificationHandlers(silo, queries, policies, keys), server)
        add_GenerationServicer_to_server(GenerationHandlers(silo, queries, policies, keys), server)

    def beside(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what is to be done beside serving, none of which returns."""
        zeros = self.keys.keep_warm(lambda: self.bench.is_idle)
        return zeros, self.audit.keep(), self._identities.keep_current(), self._follow_policy(), self._report()

    def record_policy(self) -> None:
        """Record which policy is in force, if there is a file of it.

        Raises:
            StorageError: it could not be recorded.
        """
        if self._policies.current.digest:
            self._trail.append("policy", "", {"digest": self._policies.current.digest})

    async def reload(self) -> None:
        """Look at once for changes of policy and identities, which are looked for twice a second."""
        await asyncio.to_thread(self._identities.refresh)
        if self._policies.reload():
            await self._policy_changed()
        _log.info("reloaded", policy=self._policies.current.digest)

    async def _follow_policy(self) -> None:
        """Use what becomes of policy.toml; never returns."""
        await self._policies.keep_current(self._policy_changed)

    async def _policy_changed(self) -> None:
        await self.accounts.release()  # rows counted ahead belong to earlier budgets
        try:
            self.record_policy()
        except StorageError as error:
            _log.error("the policy's change could not be recorded", reason=str(error))

    def _allowance(self, identity: str) -> Allowance:
        tier = self._policies.current.tier_of(identity)
        return Allowance(min(tier.max_rows, self._limits.rows_per_request), tier.budget)

    async def _report(self) -> None:
        """Say every second what is held in memory; never returns."""
        while self._metrics is not None:
            self._metrics.keys.set(len(self.keys))
            self._metrics.zeros.set(self.keys.zeros_ready)
            await asyncio.sleep(1.0)

    def close(self) -> None:
        """Give back rows that were counted ahead, sign the audit trail, and end threads."""
        self.accounts.close()
        self.audit.flush(sign=True)
        self.bench.close()
        self.silo.close()
        if self._traces is not None:
            self._traces.close()


def build_server(service: Service, options: Mapping[str, int] = MappingProxyType({})) -> Any:
    """Return a gRPC server with the silo's services.

    Args:
        service: what to serve.
        options: of gRPC's channels, beside the limits of messages.
    """
    limits = {
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        **options,
    }
    server = grpc.aio.server(interceptors=[service.frame], options=list(limits.items()))
    service.add_to(server)
    return server
