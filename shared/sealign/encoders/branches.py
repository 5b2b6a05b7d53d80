"""Texts that begin as another one and end otherwise, read beside it in one pass of a causal model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sealign.encoders.tokenizer import Ids


@dataclass(frozen=True, eq=False)
class Branched:
    """A trunk of tokens and, behind it, what other sequences of tokens have beyond their common beginning with it.

    A token of a branch sees the part of the trunk that its sequence shares, and what it has beyond. So its state is
    what a pass over its whole sequence would give.

    Attributes:
        ids: (n,), the trunk first.
        positions: (n,), each token's in its own sequence.
        seen: (n, n), which tokens each token sees.
        tips: (k,), where each of the k sequences ends.
    """

    ids: Ids
    positions: NDArray[np.int64]
    seen: NDArray[np.bool_]
    tips: NDArray[np.intp]

    @classmethod
    def of(cls, trunk: Ids, sequences: Sequence[Ids]) -> Branched:
        """Lay out a trunk (t,) and sequences of at least one token each."""
        shared = [common_beginning(trunk, sequence) for sequence in sequences]
        beyond = [len(sequence) - common for sequence, common in zip(sequences, shared, strict=True)]
        total = len(trunk) + sum(beyond)
        seen = np.zeros((total, total), dtype=np.bool_)
        seen[: len(trunk), : len(trunk)] = np.tri(len(trunk), dtype=np.bool_)
        positions, tips, start = [np.arange(len(trunk))], [], len(trunk)
        for common, length in zip(shared, beyond, strict=True):
            own = slice(start, start + length)
            seen[own, :common] = True
            seen[own, own] = np.tri(length, dtype=np.bool_)
            positions.append(np.arange(common, common + length))
            start += length
            tips.append(start - 1)
        ids = [trunk, *(sequence[common:] for sequence, common in zip(sequences, shared, strict=True))]
        return cls(np.concatenate(ids), np.concatenate(positions), seen, np.array(tips, dtype=np.intp))

    def mask(self, dtype: torch.dtype) -> torch.Tensor:
        """Return what is added to attention scores, (1, 1, n, n)."""
        mask = torch.zeros(self.seen.shape, dtype=dtype)
        mask[torch.from_numpy(~self.seen)] = torch.finfo(dtype).min
        return mask[None, None]


def common_beginning(one: Ids, other: Ids) -> int:
    """Return how many tokens both begin with; the last of the other one does not count, since its state is wanted."""
    shorter = min(len(one), len(other) - 1)
    different = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(different[0]) if different.size else shorter
