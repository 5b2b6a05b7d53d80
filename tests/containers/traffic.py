"""Applications that have a daemon classify a text again and again, and what they notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from time import monotonic

import httpx
import numpy as np

from tests.support.containers import Composition, wait_until

HOST = "sealign.localhost:7480"
_TEXT = "crude oil prices rose after opec agreed to cut output"


@dataclass
class Traffic:
    """Calls of applications, one after the other for each.

    Attributes:
        seconds: how long each call took that was answered.
        faults: what the others were told.
    """

    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    over: Event = field(default_factory=Event)

    def run(self, token: str) -> None:
        """Ask until it is over."""
        with httpx.Client(headers={"Host": HOST, "Authorization": f"Bearer {token}"}, timeout=90) as http:
            while not self.over.is_set():
                began = monotonic()
                try:
                    reply = http.post("http://127.0.0.1:7480/classify", json={"input": _TEXT})
                except httpx.HTTPError as error:
                    self.faults.append(repr(error))
                    continue
                if reply.status_code == 200 and reply.json()["data"][0]["label"] == "crude":
                    self.seconds.append(monotonic() - began)
                else:
                    self.faults.append(f"{reply.status_code}: {reply.text}")

    def goes_on(self, more: int = 10) -> None:
        """Wait for more answers."""
        seen = len(self.seconds)
        wait_until(lambda: len(self.seconds) >= seen + more, f"{more} more answers; {self.faults[-3:]}")

    def summary(self) -> str:
        """Return the figures to print."""
        half, most, last = (float(np.quantile(self.seconds, at)) for at in (0.5, 0.99, 1))
        return (
            f"{len(self.seconds)} answers, {len(self.faults)} failed calls; "
            f"median {half:.2f} s, 99 % within {most:.2f} s, longest {last:.2f} s"
        )


@contextmanager
def traffic(demo: Composition, applications: int = 2) -> Iterator[Traffic]:
    """Let applications ask the demo's daemon while inside."""
    found = Traffic()
    token = demo.run("exec", "--no-TTY", "daemon", "cat", "/token/daemon.token").strip()
    threads = [Thread(target=found.run, args=(token,)) for _ in range(applications)]
    for thread in threads:
        thread.start()
    try:
        found.goes_on()
        yield found
        found.goes_on()
    finally:
        found.over.set()
        for thread in threads:
            thread.join()
