"""Has a daemon align with its silo, unless a task can be used already: ``python align.py PUBLIC.txt``.

``sealign align`` does the same without a daemon. The daemon has its model loaded already, which is most of the time
that a small alignment takes. Only the standard library is used, so that an image without Sealign can run this.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

_POLL_SECONDS = 0.5


def main() -> None:
    """Align, and wait for the end."""
    parser = argparse.ArgumentParser(description="Have a Sealign daemon align with its silo.")
    parser.add_argument("public", type=Path, help="public texts, one per line; the silo must hold the same file")
    parser.add_argument("--daemon", default=os.environ.get("DAEMON"), help="HTTP address of the daemon ($DAEMON)")
    parser.add_argument("--token-file", default=os.environ.get("TOKEN_FILE"), help="its token file ($TOKEN_FILE)")
    parser.add_argument("--wait", type=float, default=300.0, help="seconds to wait for daemon and silo")
    options = parser.parse_args()
    if not options.daemon or not options.token_file:
        parser.error("name the daemon and its token file: --daemon URL --token-file FILE")
    deadline = time.monotonic() + options.wait

    def call(method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "text/plain"}
        if path != "/ready":
            headers["Authorization"] = f"Bearer {Path(options.token_file).read_text(encoding='ascii').strip()}"
        request = Request(options.daemon + path, body, headers, method=method)  # noqa: S310 - the user's URL
        with urlopen(request, timeout=90) as reply:  # noqa: S310
            answer: dict[str, Any] = json.load(reply)
            return answer

    while (state := _readiness(call)) not in ("READY", "NO_MAP"):
        if time.monotonic() > deadline:
            sys.exit(f"The daemon at {options.daemon} cannot align: {state}")
        time.sleep(_POLL_SECONDS)
    if state == "READY":
        print("a map is there already")
        return
    run = call("POST", "/page/alignments", options.public.read_bytes())
    while run["state"] == "running":
        time.sleep(_POLL_SECONDS)
        run = call("GET", f"/page/alignments/{run['id']}")
    if run["state"] != "done":
        sys.exit(f"The alignment {run['state']}: {(run['problem'] or {}).get('detail', '')}")
    learned = run["learned"]
    print(f"aligned over {options.public.name}: explained variance {learned['explained_variance']:.2f}")


def _readiness(call: Any) -> str:
    """Return READY, the code of what is missing, or why the daemon is not reached."""
    try:
        call("GET", "/ready")
    except HTTPError as error:
        problem = json.loads(error.read())
        return str(problem["code"] if problem["code"] == "NO_MAP" else problem["detail"])
    except (URLError, OSError) as error:
        return str(error)
    return "READY"


if __name__ == "__main__":
    main()
