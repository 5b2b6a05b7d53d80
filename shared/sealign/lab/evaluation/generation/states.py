"""Both sides' hidden states over texts: read once, then kept in the evaluation's cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from sealign.encoders import Embeddings
from sealign.encoders.causal import CausalModel
from sealign.encoders.tokenizer import CausalTokenizer, Ids
from sealign.files import Array, load_arrays, save_arrays
from sealign.generation.states import client_rows, counted, silo_rows
from sealign.lab.evaluation.texts import Texts, digest

_FORMAT = "sealign.states/1"
"""Changes with what a row is; files of another format are not read."""

_TEXTS_PER_FILE = 8
"""Texts are read so many at a time: what an interruption can lose. Another number of rows finds the same files."""

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class States:
    """Rows of both sides, row by row after the same text.

    Attributes:
        client: (n, s), as the client's model sends them.
        final: (n, h), its final hidden states.
        silo: (n, t).
        following: (n,), the silo's token that comes next in the text; −1 after a text's last one.
        seconds: that reading took, whenever it was done.
    """

    client: Embeddings
    final: Embeddings
    silo: Embeddings
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
        parts = []
        for start in range(0, len(texts), _TEXTS_PER_FILE):
            some = texts[start : start + _TEXTS_PER_FILE]
            parts.append((self._client(client, silo, some), self._silo(silo, some)))
            progress(len(some))
        mine, theirs = zip(*parts, strict=True)
        sent = _joined(mine, "states", rows)
        return States(
            client=sent,
            final=sent[:, : client.hidden],
            silo=_joined(theirs, "states", rows),
            following=_joined(theirs, "following", rows),
            seconds=sum(part["seconds"].item() for part in (*mine, *theirs)),
        )

    def _silo(self, model: CausalModel, texts: Texts) -> dict[str, Array]:
        def read() -> dict[str, Array]:
            rows = list(silo_rows(model, texts))
            return {name: np.concatenate([getattr(row, name) for row in rows]) for name in ("states", "following")}

        return self._kept(("silo", model.card.fingerprint), texts, read)

    def _client(self, model: CausalModel, silo: CausalModel, texts: Texts) -> dict[str, Array]:
        def read() -> dict[str, Array]:
            return {"states": np.concatenate(list(client_rows(model, silo.tokenizer, texts)))}

        return self._kept(("client", model.card.fingerprint, silo.card.tokenizer), texts, read)

    def _kept(self, names: Sequence[str], texts: Texts, read: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        path = self._directory / f"{digest((_FORMAT, *names), texts)[:32]}.safetensors"
        if path.exists():
            return load_arrays(path)[0]
        started = perf_counter()
        arrays = read()
        arrays["seconds"] = np.array([perf_counter() - started])
        save_arrays(path, arrays, {}, mode=0o600)
        return arrays


def _joined(parts: Sequence[dict[str, Array]], name: str, rows: int) -> Array:
    return np.concatenate([part[name] for part in parts])[:rows]
