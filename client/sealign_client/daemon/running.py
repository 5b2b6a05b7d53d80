"""A daemon that runs already, as its user's commands use it: with a warm model, key and connection."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import cast

import grpc

from sealign.errors import InvalidInputError
from sealign.protocol.status import error_of
from sealign.protocol.v1 import daemon_pb2 as pb
from sealign.protocol.v1.daemon_pb2_grpc import DaemonStub
from sealign_client.daemon.private_socket import private_socket
from sealign_client.feed import Feed
from sealign_client.results import Classification
from sealign_client.retry import Retry
from sealign_client.settings import ClientSettings

_PIECE = 64
_AHEAD = 1024
_SECONDS = 3600.0
_OPTIONS = (("grpc.max_receive_message_length", 32 << 20), ("grpc.enable_http_proxy", 0))


class RunningDaemon:
    """A daemon of this user with given settings. Close it, or use it as a context manager.

    Args:
        path: of its private socket.
        timeout: seconds of patience with a daemon that has no room, or is being restarted.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._timeout = timeout
        self._channel = grpc.insecure_channel(f"unix:{path}", options=_OPTIONS)
        self._stub = DaemonStub(self._channel)

    @classmethod
    def find(cls, settings: ClientSettings) -> RunningDaemon | None:
        """Return the daemon that runs with these settings; None if there is none."""
        path = private_socket(settings)
        if path is None or not path.is_socket() or path.stat().st_uid != os.getuid():
            return None
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:  # a daemon that was killed left it behind
                return None
        return cls(path, settings.timeout)

    def __enter__(self) -> RunningDaemon:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._channel.close()

    def classify_each(self, texts: Iterable[str], task: str | None = None) -> Iterator[Classification]:
        """Classify any number of texts in constant memory, and yield results as they are made.

        Raises:
            SealignError: as `Client.classify_each`.
        """
        feed, number = Feed(texts, _AHEAD), 1
        try:
            while piece := feed.take(_PIECE):
                yield from self._answers(piece, number, task)
                number += len(piece)
        finally:
            feed.close()

    def classify(self, texts: list[str], task: str | None = None) -> list[Classification]:
        """Return the classifications of texts, in their order.

        Raises:
            SealignError: as `Client.classify`.
        """
        pieces = [texts[start : start + _PIECE] for start in range(0, len(texts), _PIECE)] or [[]]
        return [result for piece in pieces for result in self._classified(piece, task)]

    def _answers(self, piece: list[str], first: int, task: str | None) -> Iterator[Classification]:
        """Yield what is made of a piece of texts, up to the first one that cannot be used."""
        try:
            yield from self._classified(piece, task)
        except InvalidInputError:
            for number, text in enumerate(piece, first):
                try:
                    yield from self._classified([text], task)
                except InvalidInputError as fault:  # noqa: PERF203 - the first faulty text is looked for
                    from sealign_client.inputs import faulty_text

                    raise faulty_text(number, fault) from None

    def _classified(self, texts: list[str], task: str | None) -> list[Classification]:
        retry = Retry(self._timeout)  # the daemon is as patient with the silo, so that its time is not waited twice
        while True:
            try:
                reply = self._stub.ClassifyTexts(pb.ClassifyTextsRequest(task=task, texts=texts), timeout=_SECONDS)
                break
            except grpc.RpcError as failure:
                time.sleep(retry.pause(error_of(cast(grpc.Call, failure), "the daemon")))
        labels = tuple(reply.labels)
        return [_classification(result, labels) for result in reply.classifications]


def _classification(result: pb.Classified, labels: tuple[str, ...]) -> Classification:
    calibrated = result.HasField("probability")
    return Classification(
        label=result.label,
        index=result.index,
        probability=result.probability if calibrated else None,
        probabilities=dict(zip(labels, result.probabilities, strict=True)) if calibrated else None,
        labels=labels,
        logits=tuple(result.logits),
        ood_scores=dict(sorted(result.ood_scores.items())),
        in_distribution=result.in_distribution if result.HasField("in_distribution") else None,
    )
