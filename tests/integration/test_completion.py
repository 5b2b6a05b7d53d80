"""What shells complete: commands, values, and the names of public texts."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import command, environment, script


@pytest.mark.parametrize(
    ("words", "completed"), [("sealign cl", ["classify"]), ("sealign classify --on-error ", ["fail", "skip", "label"])]
)
def test_a_shell_completes_commands_and_values(words: str, completed: list[str]) -> None:
    ran = command("sealign", _SEALIGN_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert ran.stdout.split() == completed, ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("sealign", "align"),
        ("sealign", "generate", "a"),
        ("sealign-server", "init", "a"),
        ("sealign-server", "coverage"),
    ],
)
def test_a_shell_completes_public_texts(words: tuple[str, ...], tmp_path: Path) -> None:
    """The program's own script in a real bash, which completes names of files itself where the script says nothing."""
    (tmp_path / "genes").mkdir()
    for name in ("general.txt", "own texts.txt", ".hidden", "$(touch a)"):
        (tmp_path / name).touch()

    def offered(word: str) -> list[str]:
        line = [*words, "--public", word]
        variable = f"_{words[0].upper().replace('-', '_')}_COMPLETE"
        told = f'{shlex.quote(script(words[0]))} "$@"'
        run = f"""
            {words[0]}() {{ {told}; }}
            eval "$({variable}=source_bash {words[0]})"
            COMP_WORDS=({shlex.join(line)}); COMP_CWORD={len(line) - 1}
            _{words[0].replace("-", "_")}_completion {shlex.quote(script(words[0]))}
            complete -p {words[0]} >&2
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        ran = subprocess.run(["bash", "-c", run], cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert "complete -o default -F" in ran.stderr, ran.stderr
        return ran.stdout.split("\n")[:-1]

    assert offered("") == ["general", "general.txt", "genes/", "own texts.txt"]
    assert offered("gene") == ["general", "general.txt", "genes/"]
    assert offered("own") == offered("genes/") == offered("general.t") == [""]
