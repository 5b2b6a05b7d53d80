"""The affine map refined for generation: by what the silo's head predicts from mapped states, not by the states.

Ridge regression weighs all directions of the silo's space alike. The head does not: errors along directions that it
hardly reads cost nothing, and small ones along others change the next token. So the map that ridge gives is refined
by minimising the Kullback-Leibler divergence from the silo's own next-token distribution to the one that its head
gives to mapped states (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531,
with the affine map as the student).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from sealign.alignment import AffineMap
from sealign.encoders.causal import OutputHead
from sealign.errors import InvalidInputError
from sealign.files import row_parts

States: TypeAlias = NDArray[np.float32] | NDArray[np.float16]

HELD_OUT = 0.1
"""Share of the rows that choose the epoch."""

_BATCH = 256
_CHUNK = 256
"""Rows whose logits are in memory at once."""
_JUDGES = 8192
"""Most held-out rows that choose the epoch, spread evenly."""
_SAMPLE = 2048
"""Most rows that choose the likeliest outputs: a pass of all over a whole vocabulary costs more than some epochs."""
_SPREAD = 1e-3
"""Directions of the source space with less than so much of the mean variance are not stretched beyond it."""


@dataclass(frozen=True)
class Refinement:
    """A refined map and what its held-out rows say.

    Attributes:
        map: affine as before, with a quality of its own; without a channel, which held for the map before.
        divergences: mean divergence over held-out rows, in nats a token: of the given map, then after each epoch.
        best: the epoch whose map was kept; 0 is the given one.
    """

    map: AffineMap
    divergences: tuple[float, ...]
    best: int


def refine_by_divergence(
    start: AffineMap,
    head: OutputHead,
    X: States,
    Y: States,
    *,
    epochs: int = 8,
    patience: int = 3,
    step: float = 0.05,
    held_out: float = HELD_OUT,
    outputs: int = 16_384,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Refinement:
    """Minimise the mean over rows of KL(softmax(head(y)) ‖ softmax(head(xW + b))) over W and b, from the given map.

    AdamW (Loshchilov and Hutter, arXiv 1711.05101) over whitened source rows; weight decay pulls to the given map. An
    epoch after which held-out rows diverge more than before is taken back, and the steps become a third: what is too
    large depends on rows and columns. So the map never becomes worse there. Deterministic for a seed, a machine and a
    number of threads.

    Args:
        start: as ridge regression gives it.
        head: the silo's.
        X: the client's states, (n, s). Both may be mapped from files, as float16 too: only batches are in memory.
        Y: the silo's, (n, t), row by row after the same text.
        epochs: most passes over the rows; one costs some 8·n·V·t operations, V being ``outputs`` at most.
        patience: so many epochs are taken back; the next one ends it.
        step: how far the first steps may move a logit, roughly, whatever the scale of states and head: AdamW's rate
            is step / (root mean square norm of the head's rows · √s).
        held_out: share of the rows, the last ones, which are texts of their own.
        outputs: of a larger head, so many outputs that the silo's own states find likeliest on average take part; the
            others are left out of both distributions.
        seed: of the order of rows.
        progress: told, after each batch, how many rows it held; there are n·epochs in all, held-out ones left out, or
            fewer after an early stop.

    Raises:
        InvalidInputError: shapes that do not fit together, too few rows, or numbers that are not finite.
    """
    held = int(len(X) * held_out)
    _check(start, head, X, Y, held)
    objective = _Objective(head, Y, outputs)
    student = _Student(start, X[:-held])
    rate = step / float(np.linalg.norm(head.weight) * np.sqrt(len(start.weight) / len(head.weight)))
    train = len(X) - held
    order = np.random.default_rng(seed)
    held_rows = np.unique(np.linspace(train, len(X) - 1, min(held, _JUDGES)).astype(np.intp))
    divergences = [objective.mean(student, X, held_rows)]
    best, kept, taken_back = 0, student.copied(), 0
    optimiser = _optimiser(student, rate)
    for epoch in range(1, epochs + 1):
        for batch in np.array_split(order.permutation(train), -(-train // _BATCH)):
            optimiser.zero_grad()
            torch.autograd.backward(objective.divergence(student(_batch(X, batch)), batch).mean())
            optimiser.step()
            if progress is not None:
                progress(len(batch))
        divergences.append(objective.mean(student, X, held_rows))
        if divergences[-1] < divergences[best]:
            best, kept = epoch, student.copied()
            continue
        student.restore(kept)
        taken_back += 1
        if taken_back > patience:
            break
        optimiser = _optimiser(student, rate / 3**taken_back)
    student.restore(kept)
    refined = start if best == 0 else _refined(start, student.affine(), divergences[best], (X, Y, held_rows), train)
    return Refinement(refined, tuple(divergences), best)


def _optimiser(student: _Student, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(student.parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)


def _check(start: AffineMap, head: OutputHead, X: States, Y: States, held: int) -> None:
    source, target = start.weight.shape
    if X.shape != (len(Y), source) or Y.shape[1:] != (target,) or head.weight.shape[1:] != (target,):
        raise InvalidInputError(
            f"states of shapes {X.shape} and {Y.shape} and a head of shape {head.weight.shape} do not fit a map of "
            f"shape {start.weight.shape}"
        )
    if held < 1 or len(X) - held < 2:
        raise InvalidInputError(f"{len(X)} rows are too few to refine a map on some and judge it on others")
    if not all(np.isfinite(part).all() for states in (X, Y) for part in row_parts(states)):
        raise InvalidInputError("hidden states are not finite; check the models")


def _refined(
    start: AffineMap,
    affine: tuple[NDArray[np.float64], NDArray[np.float64]],
    divergence: float,
    judges: tuple[States, States, NDArray[np.intp]],
    train: int,
) -> AffineMap:
    """The map with this weight and intercept, and its quality over held-out rows; ``train`` come before them."""
    X, Y, held = judges
    weight, intercept = affine
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    refined = replace(start, weight=weight, intercept=intercept, created=created, channel=None)
    # Rows held out here may have been in the fit of the given map: the difference of both is free of that.
    mean = np.sum([part.sum(axis=0, dtype=np.float64) for part in row_parts(Y[:train])], axis=0) / train
    x, y = (np.asarray(states[held], dtype=np.float32) for states in (X, Y))
    before, after = (_explained(learned.apply(x), y, mean) for learned in (start, refined))
    quality = replace(
        start.quality,
        explained_variance=start.quality.explained_variance + after[0] - before[0],
        mean_cosine=None if start.quality.mean_cosine is None else start.quality.mean_cosine + after[1] - before[1],
        family="refined",
        divergence=divergence,
    )
    return replace(refined, quality=quality)


def _explained(
    predicted: NDArray[np.float64], Y: NDArray[np.float32], mean: NDArray[np.float64]
) -> tuple[float, float]:
    """Explained variance about a mean, (t,), and mean cosine, of predictions of Y, (n, t)."""
    own = Y.astype(np.float64)
    error, total = np.square(own - predicted).sum(), np.square(own - mean).sum()
    cosines = (own * predicted).sum(axis=1) / (np.linalg.norm(own, axis=1) * np.linalg.norm(predicted, axis=1))
    return float(1 - error / total), float(cosines.mean())


def _batch(states: States, rows: NDArray[np.intp]) -> torch.Tensor:
    """Some rows, float32, (m, d)."""
    return torch.from_numpy(np.ascontiguousarray(states[rows], dtype=np.float32))


class _Objective:
    """Divergence of the head's predictions from those for the silo's own states."""

    def __init__(self, head: OutputHead, Y: States, outputs: int) -> None:
        # Copies share no memory with the model's read-only weights; torch would warn of those.
        self._weight = torch.tensor(head.weight)
        self._bias = torch.zeros(len(head.weight)) if head.bias is None else torch.tensor(head.bias)
        self._own = Y
        if outputs < len(head.weight):
            kept = self._likeliest(outputs)
            self._weight, self._bias = self._weight[kept], self._bias[kept]

    def divergence(self, mapped: torch.Tensor, rows: NDArray[np.intp]) -> torch.Tensor:
        """In nats, (m,), of mapped states (m, t) of these rows."""
        own = torch.log_softmax(self._logits(_batch(self._own, rows)), dim=1)
        other = torch.log_softmax(self._logits(mapped), dim=1)
        return torch.nn.functional.kl_div(other, own, reduction="none", log_target=True).sum(dim=1)

    def mean(self, student: _Student, X: States, rows: NDArray[np.intp]) -> float:
        """Over rows that are not learned from."""
        with torch.inference_mode():
            parts = (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
            total = sum(float(self.divergence(student(_batch(X, part)), part).sum()) for part in parts)
        return total / len(rows)

    def _likeliest(self, outputs: int) -> torch.Tensor:
        """Outputs of the largest mean probability for a sample of the silo's own states, (outputs,)."""
        mass = torch.zeros(len(self._weight))
        some = np.arange(0, len(self._own), -(-len(self._own) // _SAMPLE))
        with torch.inference_mode():
            for start in range(0, len(some), _CHUNK):
                mass += torch.softmax(self._logits(_batch(self._own, some[start : start + _CHUNK])), dim=1).sum(dim=0)
        return mass.topk(outputs).indices.sort().values

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return states @ self._weight.T + self._bias


class _Student:
    """The given map plus a correction: x(W + P·D) + b + c − μ·P·D, D and c from zero, P whitening the source rows."""

    def __init__(self, start: AffineMap, X: States) -> None:
        mean = np.sum([part.sum(axis=0, dtype=np.float64) for part in row_parts(X)], axis=0) / len(X)
        scatter = np.zeros((X.shape[1], X.shape[1]))
        for part in row_parts(X):
            centred = part.astype(np.float64) - mean
            scatter += centred.T @ centred
        values, vectors = np.linalg.eigh(scatter / len(X))
        self._start = start
        self._mean = mean
        self._whitening = vectors / np.sqrt(np.maximum(values, _SPREAD * values.mean()))
        self._fixed = [
            torch.tensor(part, dtype=torch.float32) for part in (start.weight, start.intercept, mean, self._whitening)
        ]
        shape = start.weight.shape
        self._correction = torch.zeros(shape, requires_grad=True)
        self._shift = torch.zeros(shape[1:], requires_grad=True)
        self.parameters = [self._correction, self._shift]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Mapped states (m, t) of source states (m, s)."""
        weight, intercept, mean, whitening = self._fixed
        return x @ weight + intercept + ((x - mean) @ whitening) @ self._correction + self._shift

    def copied(self) -> list[torch.Tensor]:
        """Correction and shift as they are now."""
        return [part.detach().clone() for part in self.parameters]

    def restore(self, copied: list[torch.Tensor]) -> None:
        """Go back to what was copied."""
        with torch.no_grad():
            for part, before in zip(self.parameters, copied, strict=True):
                part.copy_(before)

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight and intercept as they are now."""
        added = self._whitening @ self._correction.detach().numpy().astype(np.float64)
        shift = self._shift.detach().numpy().astype(np.float64)
        return self._start.weight + added, self._start.intercept + shift - self._mean @ added
