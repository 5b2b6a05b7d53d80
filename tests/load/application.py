"""An application that asks a silo again and again, and what it notices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import numpy as np
from numpy.typing import NDArray

from sealign.errors import SealignError
from sealign_client import Client
from tests.support.wire import Embeddings

_FLOW_SECONDS = 60.0


@dataclass
class Application:
    """Queries of one client, one after the other, until it is told to stop.

    Attributes:
        client: asks.
        row: embedding to ask about, (1, d).
        is_right: whether an answer is; None where heads change meanwhile.
        seconds: how long each call took.
        faults: calls that failed, or were answered wrongly.
    """

    client: Client
    row: Embeddings
    is_right: Callable[[NDArray[np.float64]], bool] | None = None
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    over: Event = field(default_factory=Event)

    def run(self) -> None:
        """Ask until it is over."""
        while not self.over.is_set():
            began = time.monotonic()
            try:
                logits = self.client.logits(self.row)
                if self.is_right is not None and not self.is_right(logits):
                    self.faults.append("a wrong answer")
            except SealignError as error:
                self.faults.append(f"{type(error).__name__}: {error}")
            self.seconds.append(time.monotonic() - began)


@contextmanager
def running(applications: Sequence[Application]) -> Iterator[None]:
    """Let applications ask while inside."""
    threads = [Thread(target=application.run) for application in applications]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for application in applications:
            application.over.set()
        for thread in threads:
            thread.join()


def wait_for_answers(applications: Sequence[Application], more: int) -> None:
    """Wait until each has had more answers."""
    before = [len(application.seconds) for application in applications]
    deadline = time.monotonic() + _FLOW_SECONDS
    while any(len(a.seconds) < count + more for a, count in zip(applications, before, strict=True)):
        assert time.monotonic() < deadline, [application.faults for application in applications]
        time.sleep(0.02)


def milliseconds(applications: Sequence[Application], quantile: float) -> float:
    """Return a quantile of how long calls took."""
    return float(np.quantile([second for a in applications for second in a.seconds], quantile)) * 1e3
