"""An application that has texts classified: it knows the daemon's HTTP address and token, and nothing of a silo.

    python application.py TEXTS.tsv --daemon http://localhost:7480 --token-file daemon.token

Reads a table with the columns ``label`` and ``text``, tab-separated. Waits until the daemon can classify. Prints each
text with the label it was given, and a sum at the end of the table. With ``--pause`` it goes on with one text at a time
until it is stopped. While the silo is away it says so, and tries again. The standard library is enough for this, and
for the same in any language.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import FrameType
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

_RETRY_SECONDS = 1.0
_READY_SECONDS = 0.2


class NotAnsweredError(Exception):
    """The daemon cannot answer now, or cannot be reached."""


@dataclass(frozen=True)
class Daemon:
    """A daemon's HTTP interface.

    Attributes:
        url: its address, without a path.
        token: content of its token file.
    """

    url: str
    token: str

    def classify(self, texts: Sequence[str], task: str | None) -> list[str]:
        """Return the labels of texts, in their order.

        Raises:
            NotAnsweredError: the daemon cannot answer now, or cannot be reached.
        """
        body: dict[str, object] = {"input": list(texts)}
        if task is not None:
            body["model"] = task
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = Request(f"{self.url}/classify", json.dumps(body).encode(), headers)  # noqa: S310 - the user's URL
        try:
            with urlopen(request, timeout=90) as reply:  # noqa: S310
                return [entry["label"] for entry in json.load(reply)["data"]]
        except HTTPError as error:
            raise NotAnsweredError(json.loads(error.read())["detail"]) from None
        except (URLError, TimeoutError, ConnectionError) as error:
            raise NotAnsweredError(f"The daemon at {self.url} is not reached: {error}") from None


def main() -> None:
    """Classify the table, and go on if that is asked for."""
    parser = argparse.ArgumentParser(description="Have labelled texts classified by a Sealign daemon.")
    parser.add_argument("texts", type=Path, help="table of labels and texts, tab-separated, with a header")
    parser.add_argument("--daemon", default=os.environ.get("DAEMON"), help="HTTP address of the daemon ($DAEMON)")
    parser.add_argument("--token-file", default=os.environ.get("TOKEN_FILE"), help="its token file ($TOKEN_FILE)")
    parser.add_argument("--task", help="the silo's task; not needed if it has one")
    parser.add_argument("--pause", type=float, help="go on, one text every so many seconds")
    options = parser.parse_args()
    if not options.daemon or not options.token_file:
        parser.error("name the daemon and its token file: --daemon URL --token-file FILE")
    signal.signal(signal.SIGTERM, _stop)

    rows = [line.split("\t", 1) for line in options.texts.read_text(encoding="utf-8").splitlines()[1:]]
    url = options.daemon.rstrip("/")
    while not _is_ready(url):  # it makes its token file before
        time.sleep(_READY_SECONDS)
    daemon = Daemon(url, Path(options.token_file).read_text(encoding="ascii").strip())
    right = 0
    for expected, text in rows:
        right += _show(daemon, options.task, text) == expected
    print(f"{right} of {len(rows)} labels are those of the table", flush=True)
    if options.pause is not None:
        for _, text in cycle(rows):
            time.sleep(options.pause)
            _show(daemon, options.task, text)


def _is_ready(url: str) -> bool:
    """Return whether the daemon can classify."""
    try:
        with urlopen(f"{url}/ready", timeout=90):  # noqa: S310 - the user's URL
            return True
    except OSError:  # it is not reached, or says what is missing
        return False


def _show(daemon: Daemon, task: str | None, text: str) -> str:
    """Print a text with its label, however long the answer takes; return the label."""
    while (label := _label(daemon, task, text)) is None:
        time.sleep(_RETRY_SECONDS)
    print(f"{label:<12}  {text[:90]}", flush=True)
    return label


def _label(daemon: Daemon, task: str | None, text: str) -> str | None:
    """Return the label of a text, or None after printing why there is none."""
    try:
        (label,) = daemon.classify([text], task)
    except NotAnsweredError as error:
        print(f"no answer     {error}", flush=True)
        return None
    return label


def _stop(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    sys.exit(0)


if __name__ == "__main__":
    main()
