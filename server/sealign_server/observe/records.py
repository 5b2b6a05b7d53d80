"""One log record per call: who, what, how many rows, how it ended, how long it took."""

from __future__ import annotations

from time import perf_counter

import structlog

from sealign.app.ending import Ending
from sealign.app.frame import Call, Layer

_log = structlog.get_logger()

_QUIET = frozenset({"Describe"})


class RecordLayer(Layer):
    """Writes the record when a call has ended; a refused one at info level, as the others."""

    def on_end(self, call: Call, ending: Ending) -> None:
        """Write how the call ended."""
        write = _log.debug if call.method in _QUIET and ending.code == "OK" else _log.info
        ms = round((perf_counter() - call.started) * 1e3, 1)
        write(
            "call",
            method=call.method,
            identity=call.identity,
            request=call.request_id,
            code=ending.code,
            ms=ms,
            **call.facts,
        )
