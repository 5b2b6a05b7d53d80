"""The calls of applications: texts in, labels and tokens out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from sealign.app.frame import Call
from sealign.errors import InvalidInputError
from sealign.protocol.v1 import daemon_pb2 as pb
from sealign.protocol.v1.daemon_pb2_grpc import DaemonServicer
from sealign_client.client import AsyncClient
from sealign_client.daemon.room import require_room
from sealign_client.results import Classification

MAX_TEXTS = 1024
"""Maximum number of texts in one request."""
_REPLY_BYTES = 7 << 19
"""Size of a reply: less than the 4 MiB that gRPC clients accept by default."""


class DaemonService(DaemonServicer):
    """Answers applications in the clear.

    Args:
        client: classifies and generates.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> pb.ListTasksReply:  # noqa: N802
        """Return the silo's tasks, and whether this daemon's encoder and model can use them."""
        del request, context
        reply = pb.ListTasksReply()
        if self._client.classifies:
            reply.tasks.extend(
                pb.TaskSummary(name=t.name, description=t.description, labels=t.labels, ready=bool(t.plans))
                for t in (await self._client.describe(refresh=True)).tasks
            )
        if self._client.generates:
            reply.generation_tasks.extend(
                pb.GenerationTaskSummary(
                    name=d.card.name,
                    description=d.card.description,
                    max_tokens=d.card.max_tokens,
                    ready=d.card.plan is not None,
                )
                for d in await self._client.describe_generation()
            )
        return reply

    async def ClassifyTexts(self, request: pb.ClassifyTextsRequest, context: Any) -> pb.ClassifyTextsReply:  # noqa: N802
        """Return the labels of texts, in their order."""
        if not self._client.classifies:
            raise InvalidInputError("This daemon has no encoder. Start it with --encoder to classify texts.")
        texts = list(request.texts)
        call: Call = context
        call.note(texts=len(texts))
        task = request.task if request.HasField("task") else None
        labels = (await self._client.classifier.task(task)).labels
        most = min(MAX_TEXTS, max(1, _REPLY_BYTES // (256 + 16 * len(labels))))
        if len(texts) > most:
            raise InvalidInputError(
                f"A request holds at most {most} texts of a task with {len(labels)} labels, not {len(texts)}. "
                "Send several."
            )
        require_room(self._client, len(texts))
        results = await self._client.classify(texts, task)
        return pb.ClassifyTextsReply(classifications=map(_classified, results), labels=labels)

    async def GenerateText(  # noqa: N802
        self, request: pb.GenerateTextRequest, context: Any
    ) -> AsyncIterator[pb.GeneratedToken]:
        """Yield the tokens that follow a text."""
        del context
        if not self._client.generates:
            raise InvalidInputError("This daemon has no causal model. Start it with --model to generate text.")
        from sealign_client.generate import sampling_of

        present = {field.name for field, _ in request.ListFields()}
        given = {name: getattr(request, name) for name in _SAMPLING if name in present}
        sampling = sampling_of(**given, stop=tuple(request.stop))
        tokens = self._client.generate(
            request.prompt,
            request.task if request.HasField("task") else None,
            request.max_tokens if request.HasField("max_tokens") else None,
            sampling,
            mixture=request.mixture,
        )
        async with aclosing(tokens):
            async for token in tokens:
                yield pb.GeneratedToken(
                    text=token.text,
                    id=token.id,
                    log_probability=token.log_probability,
                    finish=None if token.finish is None else token.finish.value,
                    silo_log_probability=token.silo_log_probability,
                )


_SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty", "no_repeat_run", "seed")


def _classified(result: Classification) -> pb.Classified:
    return pb.Classified(
        label=result.label,
        probability=result.probability,
        logits=result.logits,
        ood_scores=result.ood_scores,
        in_distribution=result.in_distribution,
        index=result.index,
        probabilities=None if result.probabilities is None else result.probabilities.values(),
    )
