"""Logs: one JSON object a line on standard error."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sealign.app.logs import configure_logs
from sealign.errors import InvalidInputError

_PROGRAM = """
import sys, structlog
from sealign.app.logs import configure_logs
configure_logs(sys.argv[1])
log = structlog.get_logger()
for level in ("debug", "info", "warning", "error"):
    getattr(log, level)("event of " + level, rows=3)
"""


@pytest.mark.parametrize(("level", "events"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_json_lines_at_the_level_and_above(level: str, events: int) -> None:
    ran = subprocess.run([sys.executable, "-c", _PROGRAM, level], capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["debug", "info", "warning", "error"][-events:]
    assert all(line["rows"] == 3 and line["timestamp"].endswith("Z") for line in lines)


def test_an_unknown_level_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="log level 'loud' is not one of debug, info, warning, error"):
        configure_logs("loud")
