"""Products with very many outputs, from residues in a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from sealign.ckks import (
    Cipher,
    EncryptedProduct,
    Evaluator,
    PackingPlan,
    ProductShape,
    ResidueWeights,
    SecretKey,
    VocabularyEvaluator,
    ZeroPool,
    candidates,
    part_blocks,
    part_outputs,
    product_shape,
    residue_bytes,
)
from sealign.errors import DecryptionError, InvalidInputError, StalePlanError, StorageError
from tests.unit.ckks.parties import Floats, head

PRECISION = 1 / 8


@dataclass(frozen=True)
class Vocabulary:
    """Weights in a file, and both ends of a product with them."""

    plan: PackingPlan
    weight: Floats
    bias: Floats
    path: Path
    cipher: Cipher
    evaluator: VocabularyEvaluator
    zeros: ZeroPool

    def encrypted(self, row: Floats) -> Floats:
        parts = list(self.evaluator.evaluate_parts(self.cipher.encrypt(row), self.zeros))
        return np.concatenate(self.decrypted(parts), axis=1)

    def decrypted(self, parts: list[EncryptedProduct]) -> list[Floats]:
        blocks = part_blocks(self.plan)
        return [self.cipher.decrypt_part(part, own.start) for part, own in zip(parts, blocks, strict=True)]


def vocabulary(path: Path, dimension: int, outputs: int, parameters: str | None = None) -> Vocabulary:
    weight, bias = head(np.random.default_rng(outputs), dimension, outputs)
    weight[:, outputs // 2 :] *= np.arange(outputs - outputs // 2) % 7 != 0  # some columns of zeros
    largest = float(np.linalg.norm(weight, axis=0).max())
    shape = replace(product_shape(weight, bias, precision=PRECISION), column_norm=largest)
    plans = candidates(shape, max_modulus_bits=40)
    plan = next(plan for plan in plans if parameters in (None, plan.parameters.name))
    ResidueWeights.write(path, plan, (weight[:, outputs] for outputs in part_outputs(plan)))
    key = SecretKey.generate(plan.parameters)
    evaluator = VocabularyEvaluator(plan, path, bias)
    return Vocabulary(plan, weight, bias, path, Cipher(plan, key), evaluator, ZeroPool(key.public_key))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return vocabulary(tmp_path_factory.mktemp("weights") / "head.safetensors", 24, 40_000)


def row(dimension: int, norm: float = 1.0) -> Floats:
    values = np.random.default_rng(3).normal(size=(1, dimension))
    scaled: Floats = norm * values / np.linalg.norm(values)
    return scaled


@pytest.mark.parametrize(
    ("parameters", "dimension", "outputs"),
    [("ckks-2048-32", 40, 900), ("ckks-2048-40", 40, 900), ("ckks-4096-36", 17, 333), (None, 300, 2000)],
)
def test_logits_equal_the_clear_ones(tmp_path: Path, parameters: str | None, dimension: int, outputs: int) -> None:
    made = vocabulary(tmp_path / "w", dimension, outputs, parameters)
    clear = row(dimension) @ made.weight + made.bias
    error = np.abs(made.encrypted(row(dimension)) - clear).max()
    assert PRECISION / 1000 < error <= PRECISION


def test_every_output_beyond_the_range_is_noticed(tmp_path: Path) -> None:
    """Also those that wrap around, one alone among many: with a range of a seventh of what they can reach."""
    weight, bias = np.zeros((6, 400)), np.zeros(400)
    weight[0] = np.linspace(-1, 1, 400)
    weight[0, 7] = reach = 55.0

    norm = float(np.linalg.norm(weight))
    bounded = ProductShape(1, 6, 400, norm, reach, precision=PRECISION, column_norm=reach)

    def made(name: str, shape: ProductShape) -> Vocabulary:
        plan = candidates(shape, max_modulus_bits=40)[0]
        ResidueWeights.write(tmp_path / name, plan, (weight[:, outputs] for outputs in part_outputs(plan)))
        key = SecretKey.generate(plan.parameters)
        evaluator = VocabularyEvaluator(plan, tmp_path / name, bias)
        return Vocabulary(plan, weight, bias, tmp_path / name, Cipher(plan, key), evaluator, ZeroPool(key.public_key))

    promised = made("w", bounded.promising(0.0))
    assert promised.plan.range == 8
    assert np.abs(promised.encrypted(np.eye(1, 6) * 7.9 / reach) - weight[0] * 7.9 / reach).max() <= PRECISION
    for output in np.linspace(8.3, reach, 40):
        key = SecretKey.generate(promised.plan.parameters)  # a failure ends it
        fresh = replace(promised, cipher=Cipher(promised.plan, key), zeros=ZeroPool(key.public_key))
        with pytest.raises(DecryptionError, match="outside the promised range"):
            fresh.encrypted(np.eye(1, 6) * output / reach)
    narrow = made("narrower", replace(bounded, range=promised.plan.range / 2))
    wrapped = narrow.plan.parameters.modulus / narrow.plan.output_scale
    assert wrapped < reach
    assert abs(narrow.encrypted(np.eye(1, 6) * wrapped / reach)[0, 7]) <= 2 * PRECISION  # passes for nothing


def test_many_outputs_come_in_parts(words: Vocabulary) -> None:
    parts = list(words.evaluator.evaluate_parts(words.cipher.encrypt(row(24)), words.zeros))
    assert len(parts) == len(part_blocks(words.plan)) > 1
    assert sum(part.byte_count for part in parts) == words.plan.cost.reply_bytes
    assert max(part.byte_count for part in parts) < 4e6
    outputs = words.decrypted(parts)
    assert [part.shape[1] for part in outputs] == [s.stop - s.start for s in part_outputs(words.plan)]
    assert np.abs(np.concatenate(outputs, axis=1) - (row(24) @ words.weight + words.bias)).max() <= PRECISION


def test_residues_are_those_that_seal_multiplies(tmp_path: Path) -> None:
    """Before sanitising, the sums are, word by word, the ones that SEAL computes with plaintexts."""
    from tenseal import sealapi

    from sealign.ckks.backend import backend
    from sealign.ckks.evaluator import add_product
    from sealign.ckks.serialization import ciphertext_words, load_seeded

    made = vocabulary(tmp_path / "w", 300, 2000)
    plan, working = made.plan, backend(made.plan.parameters)
    query = made.cipher.encrypt(row(300))
    loaded = [
        load_seeded(sealapi.Ciphertext(), working.context, plan.parameters, seeded, "ciphertext")
        for seeded in query.ciphertexts
    ]
    digits = made.evaluator._weights.digits(np.array([ciphertext_words(ciphertext) for ciphertext in loaded]))
    sums = made.evaluator._weights.product(digits, 0)
    plain = Evaluator(plan, made.weight, made.bias)
    for block in (0, len(sums) - 1):
        total = sealapi.Ciphertext()
        working.evaluator.multiply_plain(loaded[0], plain._weights[0][block], total)
        for ciphertext, weights in list(zip(loaded, plain._weights, strict=True))[1:]:
            add_product(working, total, ciphertext, weights[block])
        assert np.array_equal(sums[block], ciphertext_words(total))


def test_bytes_of_a_weight(words: Vocabulary) -> None:
    padded = words.plan.cost.weight_bytes // 8
    assert 0 <= words.path.stat().st_size - padded * residue_bytes(words.plan) < 4096
    assert residue_bytes(words.plan) <= 5


def test_a_stale_or_damaged_query_is_refused(words: Vocabulary, tmp_path: Path) -> None:
    other = vocabulary(tmp_path / "w", 24, 500)
    with pytest.raises(StalePlanError):
        next(words.evaluator.evaluate_parts(other.cipher.encrypt(row(24)), words.zeros))
    query = words.cipher.encrypt(row(24))
    with pytest.raises(InvalidInputError, match="upload a key"):
        next(words.evaluator.evaluate_parts(query, ZeroPool(SecretKey.generate(words.plan.parameters).public_key)))


def test_parts_that_the_plan_does_not_have_are_refused(words: Vocabulary) -> None:
    part = next(words.evaluator.evaluate_parts(words.cipher.encrypt(row(24)), words.zeros))
    for first in (-1, words.plan.counts[2]):
        with pytest.raises(InvalidInputError, match="output blocks from block"):
            words.cipher.decrypt_part(part, first)
    with pytest.raises(InvalidInputError, match="1 to 1 rows"):
        words.cipher.decrypt_part(part, 0, rows=2)


def test_a_file_of_another_plan_or_a_cut_one_is_refused(words: Vocabulary, tmp_path: Path) -> None:
    other = vocabulary(tmp_path / "w", 24, 500)
    with pytest.raises(StorageError, match="another plan"):
        VocabularyEvaluator(words.plan, other.path, words.bias)
    content = words.path.read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match="missing, cut"):
        VocabularyEvaluator(words.plan, tmp_path / "cut", words.bias)


def test_weights_that_cannot_be_kept_are_refused(words: Vocabulary, tmp_path: Path) -> None:
    wrong = np.full((24, words.plan.outputs), np.nan)
    with pytest.raises(InvalidInputError, match="finite weights"):
        ResidueWeights.write(tmp_path / "w", words.plan, (wrong[:, outputs] for outputs in part_outputs(words.plan)))
    assert not list(tmp_path.iterdir())
    shape = product_shape(words.weight[:, :100], words.bias[:100], precision=2**-20)
    assert candidates(shape)[0].parameters.modulus_bits > 40
    with pytest.raises(InvalidInputError, match="cannot be kept as residues"):
        ResidueWeights.write(tmp_path / "w", candidates(shape)[0], iter(()))
