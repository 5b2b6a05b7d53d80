"""Both sides' hidden states over texts: read once, kept in the evaluation's cache, and mapped from a file for use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from sealign.encoders.causal import CausalModel
from sealign.encoders.tokenizer import CausalTokenizer, Ids
from sealign.files import Array, load_arrays, save_arrays, spilled_rows
from sealign.generation.states import client_rows, counted, silo_rows
from sealign.generation.whitening import Whitening
from sealign.lab.evaluation.texts import Texts, digest

_FORMAT = "sealign.states/1"
"""Changes with what a row is; files of another format are not read."""

_TEXTS_PER_FILE = 8
"""Texts are read so many at a time: what an interruption can lose. Another number of rows finds the same files."""

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class States:
    """Rows of both sides, row by row after the same text, mapped from files.

    Attributes:
        client: (n, s), as the client's model sends them.
        final: (n, h), its final hidden states.
        silo: (n, t).
        following: (n,), the silo's token that comes next in the text; −1 after a text's last one.
        seconds: that reading took, whenever it was done.
    """

    client: NDArray[np.float16]
    final: NDArray[np.float16]
    silo: NDArray[np.float16]
    following: Ids
    seconds: float


def enough_texts(tokenizer: CausalTokenizer, texts: Texts, rows: int) -> tuple[Texts, int]:
    """The first texts that together give so many rows, in whole files, or all of them; and the rows that they give."""
    count = 0
    for start in range(0, len(texts), _TEXTS_PER_FILE):
        some = texts[start : start + _TEXTS_PER_FILE]
        count += sum(len(counted(tokenizer.encode(text))) for text in some)
        if count >= rows:
            return texts[: start + _TEXTS_PER_FILE], count
    return texts, count


class StateCache:
    """Files of states, named by models and texts; the texts themselves are not stored.

    Args:
        directory: of the files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, client: CausalModel, silo: CausalModel, texts: Texts, rows: int, progress: Progress) -> States:
        """The first rows of some texts; what is not there is read and kept.

        Args:
            client: whose states are to be mapped.
            silo: whose tokens set the rows.
            texts: that give at least so many rows.
            rows: as many are returned.
            progress: told, as texts are done, how many.

        Raises:
            InvalidInputError: a text that a model cannot read.
            StorageError: a file is damaged or cannot be written.
        """
        mine, theirs, following, seconds = [], [], [], 0.0
        for start in range(0, len(texts), _TEXTS_PER_FILE):
            some = texts[start : start + _TEXTS_PER_FILE]
            mine.append(self._client(client, silo, some))
            theirs.append(self._silo(silo, some))
            arrays = load_arrays(theirs[-1])[0]
            following.append(arrays["following"])
            seconds += float(arrays["seconds"].item() + load_arrays(mine[-1])[0]["seconds"].item())
            progress(len(some))
        sent = self._joined(mine, client.card.dimension)[:rows]
        return States(
            client=sent,
            final=sent[:, : client.hidden],
            silo=self._joined(theirs, silo.hidden)[:rows],
            following=np.concatenate(following)[:rows],
            seconds=seconds,
        )

    def whitened(self, states: States, whitening: Whitening) -> States:
        """Return the same states with the client's rows whitened.

        Raises:
            StorageError: the file cannot be written.
        """
        return replace(states, client=whitening.spilled(states.client, self._directory))

    def _joined(self, files: Sequence[Path], width: int) -> NDArray[np.float16]:
        """Return the states of some files, mapped from one."""
        return spilled_rows((load_arrays(path)[0]["states"] for path in files), width, self._directory)

    def _silo(self, model: CausalModel, texts: Texts) -> Path:
        def read() -> dict[str, Array]:
            rows = list(silo_rows(model, texts))
            return {name: np.concatenate([getattr(row, name) for row in rows]) for name in ("states", "following")}

        return self._kept(("silo", model.card.fingerprint), texts, read)

    def _client(self, model: CausalModel, silo: CausalModel, texts: Texts) -> Path:
        def read() -> dict[str, Array]:
            return {"states": np.concatenate(list(client_rows(model, silo.tokenizer, texts)))}

        return self._kept(("client", model.card.fingerprint, silo.card.tokenizer), texts, read)

    def _kept(self, names: Sequence[str], texts: Texts, read: Callable[[], dict[str, Array]]) -> Path:
        """Return the file that holds what is read, which is read if there is none."""
        path = self._directory / f"{digest((_FORMAT, *names), texts)[:32]}.safetensors"
        if path.exists():
            return path
        started = perf_counter()
        arrays = read()
        arrays["seconds"] = np.array([perf_counter() - started])
        save_arrays(path, arrays, {}, mode=0o600)
        return path
