"""Which connections make calls, so that others can be told from them."""

from __future__ import annotations

from collections import Counter

from sealign.app.ending import Ending
from sealign.app.frame import Call, Layer


class CallersLayer(Layer):
    """Notes who calls, by gRPC's names of peers."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._seen: set[str] = set()

    def on_begin(self, call: Call) -> None:
        """Note a call that begins."""
        peer = call.context.peer()
        self._open[peer] += 1
        self._seen.add(peer)

    def on_end(self, call: Call, ending: Ending) -> None:
        """Note a call that ends."""
        del ending
        peer = call.context.peer()
        self._open[peer] -= 1
        if not self._open[peer]:
            del self._open[peer]

    def taken(self) -> set[str]:
        """Return the peers that have had a call open since this was last asked for."""
        seen, self._seen = self._seen, set(self._open)
        return seen
