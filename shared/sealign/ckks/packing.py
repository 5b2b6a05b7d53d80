"""Coefficient packing: matrices as polynomials whose negacyclic product is the matrix product.

A product X (B×d) times W (d×C) is split into blocks of b rows, k inner elements and c outputs with
b·k·c ≤ N. Within a block

- X[i, j] stands at coefficient i·k·c + (k-1-j),
- W[j, l] stands at coefficient l·k + j,
- and the product holds Y[i, l] at coefficient i·k·c + l·k + k-1.

Coefficients that carry no output hold partial sums: they must never leave the silo. No rotations and
no evaluation keys are needed. Source: Iron (Hao et al., NeurIPS 2022, section 3.1), there for BFV.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """How many rows, inner elements and outputs one ciphertext multiplication covers."""

    rows: int
    inner: int
    outputs: int

    @property
    def size(self) -> int:
        """Coefficients the block needs: at most the polynomial degree."""
        return self.rows * self.inner * self.outputs

    def counts(self, rows: int, dimension: int, outputs: int) -> tuple[int, int, int]:
        """Numbers of row blocks, inner blocks and output blocks of a product of that shape."""
        return ceil(rows / self.rows), ceil(dimension / self.inner), ceil(outputs / self.outputs)

    @cached_property
    def output_positions(self) -> Integers:
        """Coefficients that carry outputs, shape (b, c)."""
        row = np.arange(self.rows)[:, None] * (self.inner * self.outputs)
        output = np.arange(self.outputs)[None, :] * self.inner
        return (row + output + self.inner - 1).astype(np.int64)


def _padded(matrix: Integers, rows: int, columns: int) -> Integers:
    padding = (-matrix.shape[0] % rows, -matrix.shape[1] % columns)
    return np.pad(matrix, ((0, padding[0]), (0, padding[1])))


def pack_rows(X: Integers, block: Block, poly_degree: int) -> Integers:
    """Coefficients of X, shape (B, d), as polynomials: shape (row blocks, inner blocks, N)."""
    padded = _padded(X, block.rows, block.inner)
    blocks = padded.reshape(-1, block.rows, padded.shape[1] // block.inner, block.inner).transpose(0, 2, 1, 3)
    polynomials = np.zeros((*blocks.shape[:2], poly_degree), dtype=np.int64)
    slots = polynomials[..., : block.size].reshape(*blocks.shape[:3], block.outputs, block.inner)
    slots[..., 0, :] = blocks[..., ::-1]
    return polynomials


def pack_weights(W: Integers, block: Block, poly_degree: int) -> Integers:
    """Coefficients of W, shape (d, C), as polynomials: shape (inner blocks, output blocks, N)."""
    padded = _padded(W, block.inner, block.outputs)
    inner_blocks = padded.shape[0] // block.inner
    blocks = padded.reshape(inner_blocks, block.inner, -1, block.outputs).transpose(0, 2, 3, 1)
    polynomials = np.zeros((inner_blocks, blocks.shape[1], poly_degree), dtype=np.int64)
    used = block.inner * block.outputs
    polynomials[..., :used] = blocks.reshape(inner_blocks, blocks.shape[1], used)
    return polynomials


def pack_bias(bias: Integers, block: Block) -> Integers:
    """The bias, shape (C,), at the outputs of each output block: shape (output blocks, b, c)."""
    padded = np.pad(bias, (0, -bias.shape[0] % block.outputs)).reshape(-1, 1, block.outputs)
    return np.broadcast_to(padded, (padded.shape[0], block.rows, block.outputs))


def unpack_outputs(values: NDArray[np.float64], block: Block, rows: int, outputs: int) -> NDArray[np.float64]:
    """Y, shape (rows, outputs), from output coefficients of shape (row blocks, output blocks, b, c)."""
    matrix = values.transpose(0, 2, 1, 3).reshape(values.shape[0] * block.rows, -1)
    return np.ascontiguousarray(matrix[:rows, :outputs])
