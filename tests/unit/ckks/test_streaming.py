"""The streamed product: the same core and the same replies as the evaluator, one inner block at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealign.ckks import (
    Cipher,
    EncryptedMatrix,
    PackingPlan,
    SecretKey,
    StreamedProduct,
    ZeroPool,
    candidates,
    product_shape,
)
from sealign.errors import InvalidInputError, StalePlanError
from tests.unit.ckks.parties import Floats, unit_rows


@dataclass(frozen=True)
class Ends:
    """Client and silo of one streamed product."""

    X: Floats
    weight: Floats
    plan: PackingPlan
    cipher: Cipher
    zeros: ZeroPool

    @classmethod
    def meet(cls, rows: int, dimension: int, outputs: int, seed: int = 0, precision: float = 1 / 256) -> Ends:
        generator = np.random.default_rng(seed)
        weight = generator.normal(size=(dimension, outputs)) / np.sqrt(dimension)
        shape = product_shape(weight, np.zeros(outputs), rows=rows, precision=precision)
        plan = candidates(shape, streamed=True)[0]
        key = SecretKey.generate(plan.parameters)
        X = unit_rows(generator, rows, dimension)
        return cls(X, weight, plan, Cipher(plan, key), ZeroPool(key.public_key))

    def product(self) -> StreamedProduct:
        return StreamedProduct(self.plan, self.weight, self.zeros)

    def blocks(self) -> list[EncryptedMatrix]:
        return list(self.cipher.encrypt_blocks(self.X))

    def decrypted(self, product: StreamedProduct) -> Floats:
        """The finished product, part by part."""
        parts, done = [], 0
        for part in product.finish():
            rows = min(self.plan.block.rows, len(self.X) - done)
            parts.append(self.cipher.decrypt(part, rows))
            done += rows
        return np.concatenate(parts)


@pytest.fixture(scope="module")
def ends() -> Ends:
    ends = Ends.meet(40, 600, 50)
    assert ends.plan.counts[1] >= 3
    return ends


@given(rows=st.integers(1, 60), dimension=st.integers(1, 700), outputs=st.integers(1, 40), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=15)
def test_any_shape_equals_numpy(rows: int, dimension: int, outputs: int, seed: int) -> None:
    ends = Ends.meet(rows, dimension, outputs, seed)
    product = ends.product()
    for block in ends.blocks():
        product.add(block)
    assert np.abs(ends.decrypted(product) - ends.X @ ends.weight).max() <= ends.plan.precision


def test_blocks_are_the_columns_of_the_whole_matrix(ends: Ends) -> None:
    row_blocks, inner_blocks, _ = ends.plan.counts
    assert len(ends.cipher.encrypt(ends.X).ciphertexts) == row_blocks * inner_blocks
    assert [len(block.ciphertexts) for block in ends.blocks()] == [row_blocks] * inner_blocks
    assert len(list(ends.cipher.encrypt_blocks(ends.X, start=2))) == inner_blocks - 2


def test_blocks_of_zeros_are_ordinary(ends: Ends) -> None:
    weight = ends.weight.copy()
    weight[: ends.plan.block.inner] = 0
    product = StreamedProduct(ends.plan, weight, ends.zeros)
    for block in ends.blocks():
        product.add(block)
    assert np.abs(ends.decrypted(product) - ends.X @ weight).max() <= ends.plan.precision


def test_a_refused_block_changes_nothing(ends: Ends) -> None:
    product, blocks = ends.product(), ends.blocks()
    product.add(blocks[0])
    stranger = Cipher(ends.plan, SecretKey.generate(ends.plan.parameters))
    cut = blocks[1].ciphertexts[-1]
    refused = [
        (InvalidInputError, "holds", replace(blocks[1], ciphertexts=blocks[1].ciphertexts[:-1])),
        (InvalidInputError, "holds", replace(blocks[1], ciphertexts=())),
        (InvalidInputError, "holds", replace(blocks[1], ciphertexts=(*blocks[1].ciphertexts, cut))),
        (InvalidInputError, "truncated", replace(
            blocks[1], ciphertexts=(*blocks[1].ciphertexts[:-1], replace(cut, words=cut.words[1:])))),
        (InvalidInputError, "belong together", next(stranger.encrypt_blocks(ends.X, start=1))),
        (StalePlanError, "another plan", replace(blocks[1], plan="0" * 16)),
    ]  # fmt: skip
    for error, match, block in refused:
        with pytest.raises(error, match=match):
            product.add(block)
    with pytest.raises(InvalidInputError, match="1 of"):
        next(product.finish())
    for block in blocks[1:]:
        product.add(block)
    with pytest.raises(InvalidInputError, match="complete"):
        product.add(blocks[0])
    assert np.abs(ends.decrypted(product) - ends.X @ ends.weight).max() <= ends.plan.precision
    with pytest.raises(InvalidInputError, match="finished once"):
        next(product.finish())


def test_weights_that_do_not_fit(ends: Ends) -> None:
    for weight in (ends.weight[:-1], ends.weight[:, :-1], np.where(ends.weight > 0, np.nan, ends.weight)):
        with pytest.raises(InvalidInputError, match="finite weights"):
            StreamedProduct(ends.plan, weight, ends.zeros)


def test_weights_that_could_overflow_the_promised_range(ends: Ends) -> None:
    with pytest.raises(InvalidInputError, match="overflow the range"):
        StreamedProduct(ends.plan, ends.weight * 4, ends.zeros)


def test_the_sums_bound_the_plan() -> None:
    shape = product_shape(np.ones((4000, 512)) / 64, np.zeros(512), rows=384, precision=2.0**-10)
    (plan, *_) = candidates(shape, max_bytes=64 << 20, streamed=True)
    assert plan.cost.accumulator_bytes <= 64 << 20
    assert plan.cost.request_bytes + plan.cost.reply_bytes < 200e6
    with pytest.raises(InvalidInputError, match="MiB of sums"):
        candidates(shape, max_bytes=1 << 20, streamed=True)
