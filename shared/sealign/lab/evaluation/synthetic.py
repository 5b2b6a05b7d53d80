"""Synthetic texts of an evaluation: made once for each silo's encoder, dataset and seed, then read from the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.app.progress import progress
from sealign.encoders import EncoderSettings
from sealign.errors import InvalidInputError
from sealign.files import write_atomically
from sealign.lab.evaluation.spec import EvaluationSpec, SyntheticSpec
from sealign.lab.evaluation.texts import Dataset, Texts, digest
from sealign.synthetic import Candidates, Evolution, PrivacyLoss, Writer, noise_scale

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class SyntheticTexts:
    """Makes texts as `sealign-server synthesize` does, from a dataset's training texts and public ones.

    Noise comes from the operating system: texts that are made anew are others.

    Args:
        spec: says how.
        directory: where texts are kept.
    """

    def __init__(self, spec: EvaluationSpec, directory: Path) -> None:
        if spec.synthetic is None:
            raise InvalidInputError("synthetic: the spec lacks this table; give epsilon and, for a writer, model")
        self._wanted: SyntheticSpec = spec.synthetic
        self._model = spec.encoders.get(self._wanted.model or "")
        self._directory = directory

    def made(self, dataset: Dataset, fingerprint: str, seed: int, embed: Embed) -> Texts:
        """Return the texts that stand for a dataset's training texts in the space of a silo's encoder.

        Raises:
            InvalidInputError: OpenDP is not installed, or the model cannot be loaded.
            StorageError: the texts could not be written.
        """
        wanted, private = self._wanted, tuple(dict.fromkeys(dataset.train.texts))
        settings = (wanted.model_dump_json(), self._model or "", fingerprint, str(seed), dataset.description)
        path = self._directory / f"{digest(settings, private)[:32]}.json"
        if path.exists():
            return tuple(json.loads(path.read_text(encoding="utf-8")))
        scale = noise_scale(PrivacyLoss(wanted.epsilon, wanted.delta), wanted.rounds)
        public = PublicSet.named(wanted.public).texts
        pool = Candidates(public, embed(public))
        evolution = Evolution(
            pool, embed, self._writer(dataset.description, seed), scale, wanted.rounds, wanted.count, seed=seed
        )
        texts = evolution.texts(embed(private), _shown)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, json.dumps(texts, ensure_ascii=False, indent=1).encode())
        return texts

    def _writer(self, description: str, seed: int) -> Writer | None:
        if self._model is None:
            return None
        from sealign.synthetic.writing import CausalWriter

        return CausalWriter(EncoderSettings.parse(self._model), description, self._wanted.tokens, seed)


def _shown(what: str, count: int) -> AbstractContextManager[Callable[[int], None]]:
    return progress(what, count)
