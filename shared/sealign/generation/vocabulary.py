"""A language-model head, behind an affine map: its weights, how far its logits reach, and the plan of their product."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, mapped_row_norm
from sealign.ckks import (
    LARGEST_MODULUS_BITS,
    PackingPlan,
    ProductShape,
    SecurityTable,
    candidates,
)
from sealign.errors import InvalidInputError, NoPlanError

DEFAULT_PRECISION = 1 / 16
"""Largest error of a token's logit; its standard deviation is a seventh, and moves a probability by 0.9 % of itself.

At 1/32 a refined map from Gemma-3-270M to SmolLM2-135M would leave no secure parameter set."""

_CHUNK = 4096  # tokens whose weights are composed at once
_ROWS = 64
"""States whose logits are in memory at once."""
_SAMPLE = 512
"""Public states whose logits say how far those of queries reach."""
_COARSEST = 1.0
"""The largest error of a logit that is worth proposing."""


@dataclass(frozen=True, eq=False)
class VocabularyHead:
    """A language-model head, whose logits are taken relative to their mean over the vocabulary.

    No distribution depends on that mean. Without it the weights are smaller, and so are ciphertexts.

    Attributes:
        weight: (V, d), float32, mapped into memory.
        bias: (V,), float64, its mean taken off.
        mean: (d,), of the rows of ``weight``.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float64]
    mean: NDArray[np.float64]

    @classmethod
    def of(cls, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> VocabularyHead:
        """From a head as the model has it."""
        own = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
        return cls(weight, own - own.mean(), weight.mean(axis=0, dtype=np.float64))

    def columns(self, outputs: slice) -> NDArray[np.float64]:
        """Weights of some tokens, shape (d, those)."""
        centred: NDArray[np.float64] = self.weight[outputs].astype(np.float64).T - self.mean[:, None]
        return centred

    def logits(self, states: NDArray[np.floating]) -> NDArray[np.float64]:
        """(n, V) of the silo's states (n, d), relative to their mean but for rounding."""
        logits: NDArray[np.float64] = (
            states.astype(np.float32) @ self.weight.T - (states @ self.mean)[:, None] + self.bias
        )
        return logits


@dataclass(frozen=True, eq=False)
class MappedVocabulary:
    """A head behind an affine map: logits are x·W + bias for a client's row x.

    Attributes:
        head: of the silo.
        weight: M of the map, (d_client, d); None where the client has mapped its rows.
        intercept: of the map, (d,); or the mean on which mapped rows are centred.
        row_norm: largest norm of a row.
        seen: states of public texts as the head gets them, (n, d); None where they are not known.
    """

    head: VocabularyHead
    weight: NDArray[np.float64] | None
    intercept: NDArray[np.float64]
    row_norm: float
    seen: NDArray[np.floating] | None = None

    @classmethod
    def behind(
        cls, head: VocabularyHead, learned: AffineMap, row_norm: float, rows: NDArray[np.floating] | None
    ) -> MappedVocabulary:
        """For states of a client's model, which the silo maps.

        Args:
            head: of the silo.
            learned: the map.
            row_norm: largest norm of a state.
            rows: the client's states of public texts, (n, s), of which some are looked at; None where not known.
        """
        seen = None if rows is None else learned.apply(_sample(rows))
        return cls(head, learned.weight, learned.intercept, row_norm, seen)

    @classmethod
    def over(cls, head: VocabularyHead, rows: NDArray[np.floating]) -> MappedVocabulary:
        """For rows that clients have mapped themselves and centred on the mean of the silo's public states, (n, d)."""
        return cls(head, None, rows.mean(axis=0, dtype=np.float64), mapped_row_norm(rows), _sample(rows))

    def columns(self, outputs: slice) -> NDArray[np.float64]:
        """W of some tokens, (dimension, those)."""
        columns = self.head.columns(outputs)
        return columns if self.weight is None else self.weight @ columns

    @property
    def bias(self) -> NDArray[np.float64]:
        """(V,)."""
        bias: NDArray[np.float64] = self.head.logits(self.intercept[None])[0]
        return bias

    def shape(self, precision: float) -> ProductShape:
        """The planner's input, from the norms of W and, where there are some, from logits seen."""
        vocabulary = len(self.head.bias)
        norms = np.concatenate(
            [
                np.linalg.norm(self.columns(slice(start, min(start + _CHUNK, vocabulary))), axis=0)
                for start in range(0, vocabulary, _CHUNK)
            ]
        )
        bound = float((norms * self.row_norm + np.abs(self.bias)).max())
        shape = ProductShape(
            rows=1,
            dimension=len(self.intercept) if self.weight is None else len(self.weight),
            outputs=vocabulary,
            frobenius_norm=float(np.linalg.norm(norms)),
            range=bound,
            row_norm=self.row_norm,
            precision=precision,
            column_norm=float(norms.max()),
        )
        return shape if self.seen is None else shape.promising(self._largest_logit(self.seen))

    def _largest_logit(self, states: NDArray[np.floating]) -> float:
        chunks = (states[start : start + _ROWS] for start in range(0, len(states), _ROWS))
        return max(float(np.abs(self.head.logits(chunk)).max()) for chunk in chunks)


def plan_vocabulary(
    task: str,
    mapped: MappedVocabulary,
    precision: float = DEFAULT_PRECISION,
    table: SecurityTable = SecurityTable.CLASSICAL,
) -> PackingPlan:
    """The cheapest plan for a task's logits.

    Raises:
        NoPlanError: there is none; says what the operator may do.
    """
    try:
        shape = mapped.shape(precision)
    except InvalidInputError as error:
        raise NoPlanError(f"generation task {task}: {error}") from error
    plan = _plan(shape, table)
    if plan is not None:
        return plan
    coarser = (precision * 2**step for step in range(1, 32) if precision * 2**step <= _COARSEST)
    usable = next((p for p in coarser if _plan(replace(shape, range=shape.range + p, precision=p), table)), None)
    advice = "use a model with a smaller head" if usable is None else f"serve with --generation-precision {usable:g}"
    raise NoPlanError(
        f"generation task {task} must be served with logits of up to ±{shape.range:.3g}, which no secure parameter set "
        f"holds with an error of {precision:g}: {advice}"
    )


def _plan(shape: ProductShape, table: SecurityTable) -> PackingPlan | None:
    """The cheapest plan; None if there is no secure one."""
    try:
        return candidates(shape, table, max_bytes=1 << 40, max_modulus_bits=LARGEST_MODULUS_BITS)[0]
    except InvalidInputError:
        return None


def _sample(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Some rows, spread evenly."""
    return rows[:: -(-len(rows) // _SAMPLE)]
