"""Text of the other side cannot move a cursor, hide or reorder what a terminal shows."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealign.app.terminal import print_table, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sports", "sports"),
        ("Новости, 体育, پلاک‌ها, 👩‍🔬", "Новости, 体育, پلاک‌ها, 👩‍🔬"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("abc\u202e\u2066cba", "abc\\u202e\\u2066cba"),
        ("\x9b31m\x7f\x00", "\\x9b31m\\x7f\\x00"),
        ("a\u2028b\u200bc\ufeff", "a\\u2028b\\u200bc\\ufeff"),
        ("\ud800", "\\ud800"),
        ("[red]no markup[/red]", "[red]no markup[/red]"),
        (0.5, "0.5"),
    ],
)
def test_what_is_shown(text: object, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_nothing_hidden_is_left(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(c) in ("Cc", "Cs") or unicodedata.bidirectional(c) == "RLO" for c in shown)
    assert visible(shown) == shown


def test_a_table_in_a_pipe_is_whole_and_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["[b]task[/b]", "digest"], [["to\x1b[31mpics", "f" * 300], ["x", 7]], title="All\n tasks")
    output = capsys.readouterr().out
    assert "f" * 300 in output
    assert "to\\x1b[31mpics" in output
    assert "[b]task[/b]" in output
    assert "All\\n tasks" in output
    assert "\x1b" not in output
