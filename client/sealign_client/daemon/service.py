"""The daemon: keeps model, key and connection warm, and serves applications on this machine.

Applications send texts in the clear, so it listens on loopback unless told otherwise; what leaves for
the silo is ciphertext.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from sealign_client.generation import sampling_of

from sealign.errors import InvalidInputError, SealignError, UnavailableError
from sealign.protocol.status import answering
from sealign.protocol.v1 import daemon_pb2 as pb
from sealign.protocol.v1.daemon_pb2_grpc import DaemonServicer, add_DaemonServicer_to_server
from sealign_client.client import AsyncClient
from sealign_client.settings import ClientSettings

_log = structlog.get_logger()

SERVICE = pb.DESCRIPTOR.services_by_name["Daemon"].full_name
_MAX_MESSAGE_BYTES = 32 << 20
_LOOPBACK = ("127.", "localhost", "[::1]", "unix:")


class DaemonService(DaemonServicer):
    """Answers applications with plain labels."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksReply:  # noqa: N802, ARG002
        """The silo's tasks, and whether this daemon's encoder and model can use them."""
        async with answering(context, "ListTasks"):
            reply = pb.ListTasksReply()
            if self._client.classifies:
                reply.tasks.extend(
                    pb.TaskSummary(name=t.name, description=t.description, labels=t.labels, ready=bool(t.plans))
                    for t in (await self._client.describe(refresh=True)).tasks
                )
            if self._client.generates:
                generator = await self._client.generation()
                reply.generation_tasks.extend(
                    pb.GenerationTaskSummary(
                        name=t.name, description=t.description, max_tokens=t.max_tokens, ready=t.plan is not None
                    )
                    for t in await generator.describe(refresh=True)
                )
            return reply

    async def ClassifyTexts(  # noqa: N802
        self, request: pb.ClassifyTextsRequest, context: Any
    ) -> pb.ClassifyTextsReply:
        """Labels of texts, in their order."""
        async with answering(context, "ClassifyTexts"):
            if not self._client.classifies:
                raise InvalidInputError("this daemon has no encoder: start it with --encoder to classify texts")
            results = await self._client.classify(list(request.texts), request.task or None)
            return pb.ClassifyTextsReply(
                classifications=[
                    pb.Classification(
                        label=r.label,
                        probability=r.probability,
                        logits=r.logits,
                        ood_scores=r.ood_scores,
                        in_distribution=r.in_distribution,
                    )
                    for r in results
                ]
            )

    async def GenerateText(  # noqa: N802
        self, request: pb.GenerateTextRequest, context: Any
    ) -> AsyncIterator[pb.GeneratedToken]:
        """What comes after a text, token by token."""
        async with answering(context, "GenerateText"):
            if not self._client.generates:
                raise InvalidInputError("this daemon has no causal model: start it with --model to generate text")
            sampling = sampling_of(
                temperature=request.temperature,
                top_k=request.top_k or None,
                top_p=request.top_p or 1.0,
                repetition_penalty=request.repetition_penalty or 1.0,
                seed=request.seed,
                stop=tuple(request.stop),
            )
            tokens = self._client.generate(request.prompt, request.task or None, request.max_tokens or None, sampling)
            async with aclosing(tokens):
                async for token in tokens:
                    yield pb.GeneratedToken(
                        text=token.text,
                        id=token.id,
                        log_probability=token.log_probability,
                        finish="" if token.finish is None else token.finish.value,
                    )


async def run_daemon(settings: ClientSettings, listen: str) -> None:
    """Serve applications on ``listen`` until SIGTERM or SIGINT.

    Raises:
        UnavailableError: the address cannot be listened on.
        InvalidInputError, AuthenticationError: settings that cannot work.
    """
    async with AsyncClient(settings) as client:
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
            ]
        )
        add_DaemonServicer_to_server(DaemonService(client), server)
        status = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        try:
            port = server.add_insecure_port(listen)
        except RuntimeError as error:
            raise UnavailableError(f"cannot listen on {listen}: in use or not permitted; choose another") from error
        stopping = asyncio.Event()
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
        await server.start()
        for name in ("", SERVICE):
            await status.set(name, health_pb2.HealthCheckResponse.SERVING)
        if not listen.startswith(_LOOPBACK):
            _log.warning("texts arrive here unencrypted, and this address can be reached from other machines")
        address = f"{listen.rpartition(':')[0]}:{port}"
        encoder = "none" if settings.encoder is None else client.encoder.card.name
        _log.info("serving", address=address, encoder=encoder, model=settings.model or "none", pid=os.getpid())
        if settings.encoder is not None:
            await _greet(client)
        await stopping.wait()
        await status.enter_graceful_shutdown()
        await server.stop(5.0)


async def _greet(client: AsyncClient) -> None:
    """Connect now rather than at the first query; a silo that is away is no reason to stop."""
    try:
        card = await client.describe()
        _log.info("connected", silo=card.name, tasks=[task.name for task in card.tasks], aligned=card.map is not None)
    except SealignError as error:
        _log.warning("silo not reached yet", reason=str(error))
