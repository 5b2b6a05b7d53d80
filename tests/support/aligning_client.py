"""A client process that aligns under encryption and may be killed: ``python -m tests.support.aligning_client``.

Its arguments are the settings of a client and the point, as JSON. It prints what it learned, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from sealign_client import Client, Transfer
from sealign_client.encrypted_alignment import EncryptedAlignment
from sealign_client.local.unfinished import UnfinishedAlignment
from tests.support.processes import environment
from tests.support.silo import Tls
from tests.support.views import PUBLIC, client_encoder

SENDING, SENT, RECEIVING, MADE, RECEIVED = "sending", "sent", "receiving", "made", "received"
_REPOSITORY = Path(__file__).resolve().parents[2]


def align(port: int, tls: Tls, maps: Path, point: str = "", **options: Any) -> dict[str, Any]:
    """Align in a process of its own, which is killed at ``point``; what it says, nothing if it was killed."""
    settings = json.loads(
        tls.client_settings(port, map_directory=maps).model_dump_json(
            exclude_none=True, exclude={"listen", "log_level"}
        )
    )
    command = [sys.executable, "-m", "tests.support.aligning_client", json.dumps(settings | options), point]
    ran = subprocess.run(
        command, cwd=_REPOSITORY, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == (-signal.SIGKILL if point else 0), ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout) if not point else {}
    return said


def _kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(settings: dict[str, Any], point: str) -> None:
    notes: list[str] = []
    encoder = client_encoder()

    def observe(now: Transfer) -> None:
        if now.note:
            notes.append(now.note)
        reached = {
            SENDING: now.sent > 0,
            SENT: now.sent > 0.45 * now.total,  # seven of the eight blocks are 41 % of all bytes, eight are 47 %
            RECEIVED: 0 < now.total == now.sent + now.received,
        }
        if reached.get(point, False):
            _kill()

    if point == RECEIVING:  # the product's first part has come, and nobody has taken it
        EncryptedAlignment._take = _kill  # type: ignore[assignment,method-assign]
    if point == MADE:
        UnfinishedAlignment.remove = _kill  # type: ignore[assignment,method-assign]
    with Client(encoder=encoder, **settings) as client:
        card = client.align(PUBLIC, mode="encrypted", transfer=observe)
    print(json.dumps({"rows": card.rows, "embedded": encoder.embedded, "notes": notes}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
