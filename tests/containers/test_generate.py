"""The demo of encrypted generation, as its user sees it: `docker compose -f deploy/compose.generate.yaml up`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.containers import Composition, wait_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    demo = Composition("compose.generate.yaml", tmp_path_factory.mktemp("screen") / "screen")
    with demo.running():
        wait_until(lambda: _ended(demo), "the client's end")
        yield demo


def _ended(demo: Composition) -> bool:
    return bool(demo.container("client")) and demo.inspected("client")["State"]["Status"] == "exited"


def test_texts_are_written_through_ciphertexts(demo: Composition) -> None:
    text = " ".join(demo.lines("client"))
    assert demo.inspected("client")["State"]["ExitCode"] == 0, text
    for prompt in ("The film was", "The story begins in"):
        assert prompt in text
    print(text)
    assert len(text.split()) > 30  # 40 tokens each
    logs = demo.run("logs", "--no-log-prefix", "silo")
    assert "film" not in logs
