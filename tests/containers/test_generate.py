"""The demo of encrypted generation, as its user sees it: `docker compose -f deploy/compose.generate.yaml up`.

Every test leaves the demo as it found it, running.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import pytest

from tests.containers import faults
from tests.containers.faults import Watched
from tests.support.containers import Builds, Composition, opened_page, small_volume, stages, wait_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

FILE = "compose.generate.yaml"

_PROMPTS = ("The film was", "The story begins in")
_TOKENS = 40


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A small volume for the silo's directory, and the compose file that says so."""
    with small_volume("silo", tmp_path_factory.mktemp("small"), 64) as found:
        yield found


@pytest.fixture(scope="module")
def demo(builds: Builds, volume: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    demo = Composition(FILE, tmp_path_factory.mktemp("screen") / "screen", volume[1])
    builds.wait(FILE)
    with demo.running():
        began = perf_counter()
        wait_until(lambda: len(_texts(demo)) >= len(_PROMPTS), "the first texts")
        print(f"{len(_PROMPTS)} texts {perf_counter() - began:.1f} s after `up`; {stages(demo)}")
        yield demo


@pytest.fixture
def watched(demo: Composition) -> Watched:
    return Watched(demo)


def _texts(demo: Composition) -> list[str]:
    """Return the texts on the screen, with their prompts, without the number of their tokens."""
    found = (re.fullmatch(r"(.+?)  \[\d+ tokens\]", line) for line in demo.lines("application"))
    return [match[1] for match in found if match]


def test_texts_are_written_on_the_screen(demo: Composition, watched: Watched) -> None:
    first = _texts(demo)[: len(_PROMPTS)]
    print(*first, sep="\n")
    for text, prompt in zip(first, _PROMPTS, strict=True):
        assert text.startswith(prompt)
        assert len(text.split()) > 15  # a token is half a word or more
    watched.goes_on()


def test_the_printed_address_opens_the_page_and_tokens_stream_there(demo: Composition) -> None:
    with opened_page(demo) as page:
        assert page.get("/info").json()["tasks"][0]["kind"] == "generation"
        body = {"prompt": _PROMPTS[0], "max_tokens": _TOKENS, "temperature": 0, "logprobs": 5, "stream": True}
        with page.stream("POST", "/v1/completions", json=body) as reply:
            lines = [(perf_counter(), line) for line in reply.iter_lines() if line]
    *tokens, last = [(at, line.removeprefix("data: ")) for at, line in lines]
    assert last[1] == "[DONE]"
    assert 1 < len(tokens) <= _TOKENS
    assert tokens[-1][0] - tokens[0][0] > 0.02  # as they are made, and not all at the end
    for _, line in tokens:
        crossed = json.loads(line)["ciphertexts"]
        assert min(crossed["query_bytes"], crossed["reply_bytes"]) > 1000


def test_logs_hold_no_texts(demo: Composition) -> None:
    logs = demo.run("logs", "--no-log-prefix", "silo", "daemon")
    assert not [text for text in (*_PROMPTS, *_texts(demo)) if text[:40] in logs]


@pytest.mark.parametrize("fault", [faults.kill, faults.partition, faults.rotate, faults.restart_all])
def test_a_fault_is_said_and_ends(watched: Watched, fault: Callable[[Watched], None]) -> None:
    fault(watched)


def test_a_full_volume_is_said_and_ends(watched: Watched, volume: tuple[Path, Path]) -> None:
    faults.fill(watched, volume[0])
