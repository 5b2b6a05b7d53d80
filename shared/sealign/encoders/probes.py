"""What an encoder does with fixed texts: to recognise an equivalent reader, and to check a model before it is used.

A fingerprint names files. Another reader of the same model (another export, ONNX in a browser) has another fingerprint
and may still give the same vectors. Keep :func:`probe_embeddings` beside what was learned for an encoder, and compare
with :func:`same_vectors`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sealign.encoders.encoder import Embeddings, Encoder, TextEncoder, embed
from sealign.errors import SealignError

PROBE_TEXTS = (
    "The committee published its yearly report on the harvest and the price of wheat.",
    "the committee published its yearly report on the harvest and the price of wheat.",
    "Stocks Fell Sharply In London After The Bank Raised Its Rate By 0.25 %",
    "who wrote the music for the film?",
    "A cat sleeps.",
    "query: how do I renew a passport",
    "def add(a, b):\n    return a + b",
    "Zoë's naïve café costs 12€ – déjà vu 🙂",
    "Комитет опубликовал годовой отчёт об урожае.",
    "委员会发布了关于收成和小麦价格的年度报告。",
    "نشرت اللجنة تقريرها السنوي عن المحصول.",
    "one two three four five six seven eight nine ten " * 3,
)
"""Short texts in several scripts, cases and registers: a change of pooling, prompt or case handling moves some."""

SAME_VECTORS = 0.02
"""Euclidean distance between unit vectors of one text up to which two readers are the same one.

Measured on all-MiniLM-L6-v2, farthest probe text: half precision 0.0016, bfloat16 0.014; eight-bit layers 0.50,
weighted mean instead of mean 0.26, a prompt 0.74.
"""

_SAME_RUN = 1e-3
"""The same between two passes of one encoder."""

_DIFFERENT = 1e-5


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        level: ``ok``, ``warning`` or ``error``.
        what: what was found, with its figure.
        advice: what to do, in the imperative; empty where there is nothing to do.
    """

    level: Literal["ok", "warning", "error"]
    what: str
    advice: str = ""


def probe_embeddings(encoder: Encoder) -> Embeddings:
    """Embed :data:`PROBE_TEXTS`, shape (texts, d).

    Raises:
        InvalidInputError: the encoder cannot embed them.
    """
    return embed(encoder, PROBE_TEXTS, long_texts="truncate").rows


def same_vectors(one: NDArray[Any], other: NDArray[Any], tolerance: float = SAME_VECTORS) -> bool:
    """Whether two arrays of probe embeddings, (n, d), point the same way, row by row, within a distance.

    Lengths do not count. Arrays of different shapes, or with a row that is not finite or zero, are not the same.
    """
    return one.shape == other.shape and bool((_distances(one, other) <= tolerance).all())


def check_encoder(encoder: Encoder) -> list[Finding]:
    """Try an encoder on fixed texts and report what was found, one finding per check.

    Nothing is raised: a failure is a finding.
    """
    findings = [Finding("ok", _summary(encoder))]
    if isinstance(encoder, TextEncoder):
        findings += [Finding("warning", what, advice) for what, advice in encoder.remarks]
    try:
        rows = probe_embeddings(encoder)
        findings += [check(encoder, rows) for check in _CHECKS]
    except SealignError as error:
        findings.append(Finding("error", str(error), "choose another model, or restore its files"))
    return findings


def _summary(encoder: Encoder) -> str:
    card = encoder.card
    said = f"{card.name}: {card.dimension} dimensions, fingerprint {card.fingerprint[:12]}"
    if isinstance(encoder, TextEncoder) and encoder.window is not None:
        said += f", pooling {encoder.pooling}, reads {encoder.window} tokens, long_texts={encoder.long_texts}"
    return said


def _differ(_: Encoder, rows: Embeddings) -> Finding:
    between = [float(_distances(rows[i : i + 1], rows[j : j + 1])[0]) for i in range(len(rows)) for j in range(i)]
    # Two of the texts differ only in case, and scripts that a model does not know look alike to it.
    if np.median(between) > _DIFFERENT:
        return Finding("ok", f"different texts get different vectors (median distance {np.median(between):.2g})")
    return Finding("error", "most probe texts get the same vector", "choose another pooling, tokenizer or model")


def _repeats(encoder: Encoder, rows: Embeddings) -> Finding:
    worst = float(_distances(rows, probe_embeddings(encoder)).max())
    if worst <= _SAME_RUN:
        return Finding("ok", f"the same text gets the same vector again (distance at most {worst:.2g})")
    return Finding(
        "error", f"the same text gets another vector each time (distance {worst:.2g})", "choose another model"
    )


def _alone(encoder: Encoder, rows: Embeddings) -> Finding:
    alone = np.concatenate([embed(encoder, [text], long_texts="truncate").rows for text in PROBE_TEXTS])
    worst = float(_distances(rows, alone).max())
    if worst <= _SAME_RUN:
        return Finding("ok", f"a text's vector does not depend on its batch (distance at most {worst:.2g})")
    return Finding(
        "error", f"a text's vector depends on what shares its batch (distance {worst:.2g})", "choose another model"
    )


def _order(encoder: Encoder, rows: Embeddings) -> Finding:
    worst = float(_distances(rows[::-1], embed(encoder, PROBE_TEXTS[::-1], long_texts="truncate").rows).max())
    if worst <= _SAME_RUN:
        return Finding("ok", "rows come in the order of the texts")
    return Finding("error", f"rows do not come in the order of the texts (distance {worst:.2g})", "mend the encoder")


_CHECKS: tuple[Callable[[Encoder, Embeddings], Finding], ...] = (_differ, _repeats, _alone, _order)


def _distances(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Between rows scaled to norm 1; infinite where a row has no direction."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (np.asarray(rows, dtype=np.float64) for rows in (one, other))
        a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
    distances: NDArray[np.float64] = np.nan_to_num(np.linalg.norm(a - b, axis=1), nan=np.inf)
    return distances
