"""Coefficient packing: the negacyclic product of packed matrices is the matrix product."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealign.ckks import Block
from sealign.ckks.packing import pack_bias, pack_rows, pack_weights, unpack_outputs

Integers = NDArray[np.int64]


def negacyclic(x: Integers, w: Integers) -> Integers:
    """Schoolbook product modulo X^N + 1, exact in 64-bit integers."""
    degree = x.shape[0]
    full = np.convolve(x, w)
    product: Integers = full[:degree].copy()
    product[: full.shape[0] - degree] -= full[degree:]
    return product


def packed_product(X: Integers, W: Integers, block: Block, degree: int) -> NDArray[np.float64]:
    """X·W computed on packed polynomials only."""
    x, w = pack_rows(X, block, degree), pack_weights(W, block, degree)
    outputs = np.array(
        [
            [sum(negacyclic(row[i], w[i, l]) for i in range(w.shape[0])) for l in range(w.shape[1])]  # noqa: E741
            for row in x
        ]
    )
    values = outputs[..., block.output_positions].astype(np.float64)
    return unpack_outputs(values, block, X.shape[0], W.shape[1])


@st.composite
def products(draw: st.DrawFn) -> tuple[Integers, Integers, Block, int]:
    degree = 1 << draw(st.integers(3, 8))
    b = draw(st.integers(1, degree))
    k = draw(st.integers(1, degree // b))
    c = draw(st.integers(1, degree // (b * k)))
    rows, dimension, outputs = draw(st.integers(1, 3 * b)), draw(st.integers(1, 3 * k)), draw(st.integers(1, 3 * c))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    limit = 1 << draw(st.sampled_from([1, 8, 20]))
    X = generator.integers(-limit, limit + 1, size=(rows, dimension))
    W = generator.integers(-limit, limit + 1, size=(dimension, outputs))
    return X, W, Block(b, k, c), degree


@given(products())
@settings(deadline=None, max_examples=150)
def test_unpacked_product_is_the_matrix_product(case: tuple[Integers, Integers, Block, int]) -> None:
    X, W, block, degree = case
    assert np.array_equal(packed_product(X, W, block, degree), X @ W)


@given(products())
@settings(deadline=None, max_examples=50)
def test_shapes_and_positions(case: tuple[Integers, Integers, Block, int]) -> None:
    X, W, block, degree = case
    row_blocks, inner_blocks, output_blocks = block.counts(X.shape[0], *W.shape)
    assert pack_rows(X, block, degree).shape == (row_blocks, inner_blocks, degree)
    assert pack_weights(W, block, degree).shape == (inner_blocks, output_blocks, degree)
    positions = block.output_positions
    assert positions.shape == (block.rows, block.outputs)
    assert np.unique(positions).size == positions.size
    assert 0 <= positions.min() <= positions.max() < degree


@given(products())
@settings(deadline=None, max_examples=50)
def test_bias_lands_on_its_outputs(case: tuple[Integers, Integers, Block, int]) -> None:
    X, W, block, _ = case
    rows, outputs = X.shape[0], W.shape[1]
    bias = np.arange(1, outputs + 1)
    row_blocks = block.counts(rows, *W.shape)[0]
    values = np.repeat(pack_bias(bias, block)[None], row_blocks, axis=0).astype(np.float64)
    assert np.array_equal(unpack_outputs(values, block, rows, outputs), np.tile(bias, (rows, 1)))


def test_known_answer_by_hand() -> None:
    """Iron's formula (NeurIPS 2022, section 3.1) worked by hand for 2×2 matrices and N = 8.

    X[i,j] at 4i + 1-j: x = 2 + X + 4X⁴ + 3X⁵. W[j,l] at 2l + j: w = 5 + 7X + 6X² + 8X³.
    x·w = 10 + 19X + 19X² + 22X³ + 28X⁴ + 43X⁵ + 45X⁶ + 50X⁷ + 24X⁸, and X⁸ = -1. Outputs: 1, 3, 5, 7.
    """
    X, W, block = np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 8]]), Block(2, 2, 2)
    x, w = pack_rows(X, block, 8)[0, 0], pack_weights(W, block, 8)[0, 0]
    assert x.tolist() == [2, 1, 0, 0, 4, 3, 0, 0]
    assert w.tolist() == [5, 7, 6, 8, 0, 0, 0, 0]
    assert negacyclic(x, w).tolist() == [-14, 19, 19, 22, 28, 43, 45, 50]
    assert block.output_positions.tolist() == [[1, 3], [5, 7]]
    assert packed_product(X, W, block, 8).tolist() == [[19, 22], [43, 50]]


@pytest.mark.parametrize("block", [Block(1, 768, 2), Block(1, 128, 15), Block(64, 32, 1), Block(512, 4, 1)])
def test_blocks_in_use(block: Block) -> None:
    generator = np.random.default_rng(7)
    dimension, outputs = min(768, 3 * block.inner + 1), 2 * block.outputs + 1
    X = generator.integers(-1000, 1000, size=(block.rows, dimension))
    W = generator.integers(-1000, 1000, size=(dimension, outputs))
    assert np.array_equal(packed_product(X, W, block, 2048), X @ W)
