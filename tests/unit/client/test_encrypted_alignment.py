"""A client's encrypted alignment with a faulty silo: a clear error, no map, and what is kept for another try."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealign.alignment import AffineMap
from sealign.ckks import (
    Cipher,
    PackingPlan,
    SecretKey,
    SecurityTable,
    StreamedProduct,
    WeightRows,
    ZeroPool,
    candidates,
    product_shape,
)
from sealign.ckks.verification import CHECKS
from sealign.defaults import ALIGNMENT_PRECISION
from sealign.encoders import EncoderCard
from sealign.errors import (
    DecryptionError,
    InvalidInputError,
    ReleaseRefusedError,
    SealignError,
    StorageError,
    UnavailableError,
)
from sealign.files import load_rows, save_rows
from sealign.protocol import AlignmentOffer, AlignmentRequest, CrossCovariancePart
from sealign_client.encrypted_alignment import AlignmentTask, EncryptedAlignment
from sealign_client.local.unfinished import UnfinishedAlignment
from sealign_client.retry import Retry
from sealign_server.serving.encrypted_alignment import centred_weights

ROWS, OURS, THEIRS = 120, 6, 5
ENCODER = EncoderCard(name="client", dimension=OURS, fingerprint="c" * 64)
TARGET = EncoderCard(name="silo", dimension=THEIRS, fingerprint="5" * 64)
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(ROWS, OURS)).astype(np.float32)
Y = X @ GENERATOR.normal(size=(OURS, THEIRS)) + 0.1 * GENERATOR.normal(size=(ROWS, THEIRS))
WEIGHT = Y - Y.mean(axis=0)
SHAPE = product_shape(WEIGHT, np.zeros(THEIRS), rows=OURS + CHECKS, precision=1e-3)
PLAN = candidates(SHAPE, streamed=True)[0]

Tamper = Callable[[Any], Any]


class FaultySilo:
    """A silo in this process, and the session with it; its replies are tampered with."""

    table = SecurityTable.CLASSICAL

    def __init__(self, tamper: Tamper, weight: Any = WEIGHT, plan: PackingPlan = PLAN) -> None:
        self._tamper = tamper
        self._weight = weight if isinstance(weight, WeightRows) else WeightRows.of(weight)
        self._plan = plan
        self._squared_norm = float(np.sum(self._weight.norms**2))
        self.confirmed = False
        self.alignment = self

    async def calls(self) -> FaultySilo:
        return self

    async def run(self, work: Callable[..., Any], *arguments: object) -> Any:
        return work(*arguments)

    def patience(self) -> Retry:
        return Retry(1e-3)

    async def mend(self, error: SealignError, retry: Retry) -> None:
        await retry.after(error)

    async def align_encrypted(self, request: Any, blocks: Any) -> AsyncGenerator[object, None]:
        offer = self._tamper(AlignmentOffer(b"s" * 16, self._plan, 0))
        yield offer
        assert request.check_rows == CHECKS
        product = StreamedProduct(self._plan, self._weight, ZeroPool(request.key))
        async for _, block in blocks(offer):
            product.add(block)
        for index, part in enumerate(product.finish()):
            yield self._tamper(CrossCovariancePart(index, part, self._squared_norm))
        self.confirmed = True


def alignment(silo: FaultySilo, kept: list[AffineMap], unfinished: UnfinishedAlignment) -> EncryptedAlignment:
    session: Any = silo
    task = AlignmentTask(AlignmentRequest("embeddings", ENCODER, "d" * 64, ROWS), TARGET, X)
    return EncryptedAlignment(session, task, unfinished, kept.append, None)


def traced_peak(rows: int, directory: Path) -> int:
    """Return the most memory, in bytes, that numpy and Python hold during an alignment over rows in files."""
    generator = np.random.default_rng(rows)
    hidden = generator.normal(size=(rows, 4))
    sides = [hidden @ generator.normal(size=(4, width)) + generator.normal(size=(rows, width)) for width in (40, 20)]
    for name, side in zip("xy", sides, strict=True):
        save_rows(directory / name, side.astype(np.float16))
    del hidden, sides
    x, y = (load_rows(directory / name, width, "") for name, width in (("x", 40), ("y", 20)))
    tracemalloc.start()
    weight = centred_weights(y)
    precision = ALIGNMENT_PRECISION * float(weight.norms.min())
    plan = candidates(product_shape(weight, np.zeros(20), rows=40 + CHECKS, precision=precision), streamed=True)[0]
    session: Any = FaultySilo(lambda reply: reply, weight, plan)
    request = AlignmentRequest("generation/prose", ENCODER.model_copy(update={"dimension": 40}), "d" * 64, rows)
    task = AlignmentTask(request, TARGET.model_copy(update={"dimension": 20}), x)
    made = EncryptedAlignment(session, task, UnfinishedAlignment(directory / "a"), lambda _: None, None)
    learned = asyncio.run(made.learn())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert learned.quality.rows == rows
    assert learned.quality.explained_variance > 0.5
    return peak


def test_memory_does_not_grow_with_rows_that_are_in_a_file(tmp_path: Path) -> None:
    """Both sides' rows of the larger alignment would take 4.8 MB in half precision, and 19 MB in double."""
    few, many = (traced_peak(rows, tmp_path / str(rows)) for rows in (5_000, 40_000))
    assert many - few < 1 << 20


def of_part(change: Callable[[CrossCovariancePart], CrossCovariancePart]) -> Tamper:
    return lambda reply: change(reply) if isinstance(reply, CrossCovariancePart) else reply


def of_offer(**fields: Any) -> Tamper:
    return lambda reply: replace(reply, plan=replace(PLAN, **fields)) if isinstance(reply, AlignmentOffer) else reply


def _raise(error: Exception) -> Any:
    raise error


def _of_another_key(part: CrossCovariancePart) -> CrossCovariancePart:
    """The same, of a product that another key opens, passed off as of this one."""
    other = Cipher(PLAN, SecretKey.generate(PLAN.parameters))
    product = StreamedProduct(PLAN, WEIGHT, ZeroPool(other.key.public_key))
    rows = np.resize((X / np.linalg.norm(X, axis=0)).T.astype(np.float64), (OURS + CHECKS, ROWS))
    for block in other.encrypt_blocks(rows):
        product.add(block)
    foreign = list(product.finish())[part.index]
    return replace(part, product=replace(foreign, key_id=part.product.key_id))


async def test_an_honest_silo_hears_that_all_has_come_once_the_map_is_kept(tmp_path: Path) -> None:
    silo, kept = FaultySilo(lambda reply: reply), list[AffineMap]()
    unfinished = UnfinishedAlignment(tmp_path / "a")
    learned = await alignment(silo, kept, unfinished).learn()
    assert kept == [learned]
    assert silo.confirmed
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("tamper", "error", "message", "goes_on"),
    [
        (of_offer(rows=OURS + CHECKS + 1), InvalidInputError, "incompatible", False),
        (of_offer(outputs=THEIRS + 1), InvalidInputError, "incompatible", False),
        (of_part(lambda part: replace(part, index=part.index + 1)), InvalidInputError, "parts of another", True),
        (of_part(_of_another_key), DecryptionError, "outside the promised range", False),
        # The silo's numbers contradict one another: the product explains more than there is.
        (of_part(lambda part: replace(part, squared_norm=1e-6)), InvalidInputError, "No map was made", False),
        (of_part(lambda _: _raise(ReleaseRefusedError("no more"))), ReleaseRefusedError, "no more", False),
        (of_part(lambda _: _raise(StorageError("disk full"))), StorageError, "disk full", True),
    ],
)
async def test_no_map_and_no_confirmation(
    tmp_path: Path, tamper: Tamper, error: type[Exception], message: str, goes_on: bool
) -> None:
    silo, kept = FaultySilo(tamper), list[AffineMap]()
    with pytest.raises(error, match=message):
        await alignment(silo, kept, UnfinishedAlignment(tmp_path / "a")).learn()
    assert (kept, silo.confirmed) == ([], False)
    assert (UnfinishedAlignment(tmp_path / "a").begun is not None) == goes_on


async def test_a_map_that_cannot_be_kept_is_asked_for_again(tmp_path: Path) -> None:
    """The silo is not told that all has come: with room on the disk, the same product comes again."""
    silo = FaultySilo(lambda reply: reply)
    run = alignment(silo, [], UnfinishedAlignment(tmp_path / "a"))
    run._keep = lambda _: _raise(StorageError("disk full"))
    with pytest.raises(StorageError, match="disk full"):
        await run.learn()
    assert not silo.confirmed
    begun = UnfinishedAlignment(tmp_path / "a").begun
    assert begun is not None
    assert begun.session == b"s" * 16


async def test_a_silo_that_breaks_off_after_all_has_come_is_not_asked_again(tmp_path: Path) -> None:
    class BreaksOff(FaultySilo):
        async def align_encrypted(self, *arguments: Any) -> AsyncGenerator[object, None]:
            async for reply in super().align_encrypted(*arguments):
                yield reply
            raise UnavailableError("gone")

    kept: list[AffineMap] = []
    learned = await alignment(BreaksOff(lambda r: r), kept, UnfinishedAlignment(tmp_path / "a")).learn()
    assert kept == [learned]


async def test_what_is_registered_comes_from_a_product_with_noise(tmp_path: Path) -> None:
    """So that no trace of the key is left in it; and it is nearly what an exact product would give."""
    kept: list[AffineMap] = []
    runs = [await alignment(FaultySilo(lambda r: r), kept, UnfinishedAlignment(tmp_path / "a")).learn() for _ in "ab"]
    first, second = (learned.covariances for learned in runs)
    assert first is not None
    assert second is not None
    assert np.linalg.norm(runs[0].weight - runs[1].weight) < 1e-2 * np.linalg.norm(runs[0].weight)
    assert not np.array_equal(first.cross, second.cross)
    assert np.linalg.norm(first.cross - second.cross) < 0.05 * np.linalg.norm(first.cross)
