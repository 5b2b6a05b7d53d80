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
    with pytest.raises(InvalidInputError, match="Log level 'loud' is not one of debug, info, warning, error"):
        configure_logs("loud")


_LIBRARIES = """
import logging, os, sys, threading, warnings
from sealign.app.logs import configure_logs
configure_logs("info")
warnings.warn("an old name")
logging.getLogger("grpc._server").info("not for operators")
try:
    raise ValueError("in a handler")
except ValueError:
    logging.getLogger("grpc._server").exception("Exception calling application")
os.write(2, b"E0000 00:00:1795717408.607152   14303 tls.cc:1921] Handshake failed: \\xff\\n")
os.write(2, b'{"event": "of a worker", "level": "info"}\\n')
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Failing:
    def __del__(self): raise OSError("when it was freed")
Failing()
os.system("echo of a child >&2")
print("printed", file=sys.stderr)
raise KeyError("at the end")
"""


def test_what_libraries_write_becomes_objects_too() -> None:
    ran = subprocess.run([sys.executable, "-c", _LIBRARIES], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    found = {(line.get("logger"), line["level"], line["event"].partition("\n")[0][:24]) for line in lines}
    assert found == {
        ("py.warnings", "warning", "<string>:5: UserWarning:"),
        ("grpc._server", "error", "Exception calling applic"),
        ("grpc", "error", "Handshake failed: \\xff"),
        (None, "info", "of a worker"),
        (None, "error", "uncaught exception"),
        ("stderr", "warning", "of a child"),
        ("stderr", "warning", "printed"),
    }
    traces = [line["exception"] for line in lines if "exception" in line]
    assert sorted(trace.splitlines()[-1] for trace in traces) == [
        "KeyError: 'at the end'",
        "OSError: when it was freed",
        "ValueError: in a handler",
        "ZeroDivisionError: division by zero",
    ]


def test_a_crash_is_still_told() -> None:
    program = "from sealign.app.logs import configure_logs; configure_logs(); import os; os.abort()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == -6
    assert "Fatal Python error: Aborted" in ran.stderr
