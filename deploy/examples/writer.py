"""An application that has texts written: a daemon streams them, token by token, and this prints them.

    python writer.py "The film was" "The story begins in" --daemon http://localhost:7480 --token-file daemon.token

Each token is decrypted by the daemon from a ciphertext of the silo's. With ``--pause`` it continues with one text at a
time until it is stopped. While the silo is away it says so, and tries again. The standard library is enough for this.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import chain, cycle
from pathlib import Path
from types import FrameType
from urllib.error import HTTPError
from urllib.request import Request, urlopen

_RETRY_SECONDS = 1.0


class NotWrittenError(Exception):
    """The daemon cannot generate now, or cannot be reached."""


def tokens(url: str, token: str, prompt: str, limit: int) -> Iterator[str]:
    """Yield the tokens that follow a prompt, as they come.

    Args:
        url: the daemon's HTTP address, without a path.
        token: content of its token file.

    Raises:
        NotWrittenError: the daemon cannot generate now, or cannot be reached.
    """
    body = {"prompt": prompt, "max_tokens": limit, "temperature": 0, "no_repeat_run": 4, "stream": True}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)  # noqa: S310 - the user's URL
    try:
        with urlopen(request, timeout=90) as reply:  # noqa: S310
            for line in reply:
                data = line.decode().removeprefix("data: ").strip()
                if data == "[DONE]":
                    return
                event = json.loads(data) if data else {"choices": []}
                if "error" in event:
                    raise NotWrittenError(event["error"]["message"])
                yield from (choice["text"] for choice in event["choices"])
    except HTTPError as error:
        raise NotWrittenError(json.loads(error.read())["detail"]) from None
    except OSError as error:
        raise NotWrittenError(f"The daemon at {url} is not reached: {error}") from None
    raise NotWrittenError("The daemon ended the stream early.")


def main() -> None:
    """Write a text for each prompt, and go on if that is asked for."""
    parser = argparse.ArgumentParser(description="Have a Sealign daemon continue texts.")
    parser.add_argument("prompts", nargs="+", metavar="PROMPT")
    parser.add_argument("--daemon", default=os.environ.get("DAEMON"), help="HTTP address of the daemon ($DAEMON)")
    parser.add_argument("--token-file", default=os.environ.get("TOKEN_FILE"), help="its token file ($TOKEN_FILE)")
    parser.add_argument("--max-tokens", type=int, default=40, help="maximum number of tokens of each text")
    parser.add_argument("--pause", type=float, help="seconds between texts; go on until stopped")
    options = parser.parse_args()
    if not options.daemon or not options.token_file:
        parser.error("name the daemon and its token file: --daemon URL --token-file FILE")
    signal.signal(signal.SIGTERM, _stop)

    url = options.daemon.rstrip("/")
    while not _is_ready(url):  # it makes its token file before
        time.sleep(_RETRY_SECONDS)
    token = Path(options.token_file).read_text(encoding="ascii").strip()
    again = () if options.pause is None else cycle(options.prompts)
    for number, prompt in enumerate(chain(options.prompts, again)):
        if number >= len(options.prompts):
            time.sleep(options.pause)
        while not _wrote(url, token, prompt, options.max_tokens):
            time.sleep(_RETRY_SECONDS)


def _is_ready(url: str) -> bool:
    """Return whether the daemon can generate."""
    try:
        with urlopen(f"{url}/ready", timeout=90):  # noqa: S310 - the user's URL
            return True
    except OSError:  # it is not reached, or says what is missing
        return False


def _wrote(url: str, token: str, prompt: str, limit: int) -> bool:
    """Print a prompt and what follows it; return whether it came to its end, after printing why if not."""
    written = 0
    try:
        for piece in tokens(url, token, prompt, limit):
            if not written:
                print(prompt, end="")
            written += 1
            print(piece.replace("\n", " "), end="", flush=True)
    except NotWrittenError as error:
        print(f"{chr(10) if written else ''}no answer     {error}", flush=True)
        return False
    print(f"  [{written} tokens]", flush=True)
    return True


def _stop(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    sys.exit(0)


if __name__ == "__main__":
    main()
