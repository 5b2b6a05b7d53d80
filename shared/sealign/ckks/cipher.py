"""The client's half of the encrypted product: encrypt rows, decrypt outputs.

Decryptions are rounded to the plan's grid before they leave. Unrounded ones carry errors that are linear in the secret
key: a silo that knows its reply and N of them solves for the key (Li and Micciancio, EUROCRYPT 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.ckks.backend import backend
from sealign.ckks.keys import SecretKey
from sealign.ckks.messages import EncryptedMatrix, EncryptedProduct, ReplyCiphertext
from sealign.ckks.packing import Integers, pack_rows, unpack_outputs
from sealign.ckks.plan import NORM_TOLERANCE, PackingPlan
from sealign.ckks.serialization import (
    Words,
    ciphertext_from_coefficients,
    packed_size,
    unpack_words,
)
from sealign.errors import DecryptionError, InvalidInputError

Columns: TypeAlias = Callable[[int, int], NDArray[np.float64]]
"""Returns the columns of some rows from one to another, so that the rows need not be in memory."""


def checked_rows(X: NDArray[np.floating], plan: PackingPlan, dimension: int | None = None) -> NDArray[np.float64]:
    """Rows of shape (n, d), any n, as float64, if requests under the plan can carry them.

    Args:
        X: the rows, or some columns of them.
        plan: of the requests.
        dimension: number of columns; by default all that the plan takes.

    Raises:
        InvalidInputError: wrong shape, values that are not finite, or rows longer than ``plan.row_norm``.
    """
    dimension = plan.dimension if dimension is None else dimension
    if X.ndim != 2 or X.shape[1] != dimension:
        raise InvalidInputError(
            f"the plan takes rows of dimension {dimension}, but the array has shape {X.shape}; check that the "
            "encoder is the one the plan was made for"
        )
    rows = X.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    bad = np.flatnonzero(~np.isfinite(norms))
    if bad.size:
        raise InvalidInputError(f"row {bad[0]} holds NaN or infinite values; nothing was sent")
    if norms.size and norms.max() > plan.row_norm * (1 + NORM_TOLERANCE):
        raise InvalidInputError(
            f"row {int(norms.argmax())} has L2 norm {norms.max():.4g}, the plan allows {plan.row_norm:g}; "
            "normalise the embeddings"
        )
    return rows


def columns_of(rows: NDArray[np.float64]) -> Columns:
    """Return the columns of rows that are in memory."""
    return lambda first, last: rows[:, first:last]


LARGEST_REQUEST_BYTES = 64 << 20
"""Of one encrypted message, whatever plan a silo publishes."""


class Cipher:
    """Encrypts queries and decrypts replies under one plan and one key."""

    def __init__(self, plan: PackingPlan, key: SecretKey) -> None:
        if key.parameters != plan.parameters:
            raise InvalidInputError(
                f"the key is of parameter set {key.parameters.name}, the plan of {plan.parameters.name}; "
                "generate a key for the plan's set"
            )
        self.plan = plan
        self.key = key
        self._backend = backend(plan.parameters)

    def encrypt(self, X: NDArray[np.floating]) -> EncryptedMatrix:
        """Encrypt rows X of shape (n, d), n at most ``plan.rows``, each of norm at most ``plan.row_norm``.

        Raises:
            InvalidInputError: wrong shape, values that are not finite, rows too long, or too many for a message.
        """
        return self._encrypted(self._integers(X, self.plan.dimension))

    def encrypt_blocks(self, X: NDArray[np.floating] | Columns, start: int = 0) -> Iterator[EncryptedMatrix]:
        """Encrypt rows X one inner block at a time, for a `StreamedProduct`, from block ``start`` on.

        Raises:
            InvalidInputError: as :meth:`encrypt`; before the first block, unless the rows come column by column.
        """
        plan = self.plan
        columns = X if callable(X) else columns_of(checked_rows(X, plan))
        for first in range(start * plan.block.inner, plan.dimension, plan.block.inner):
            last = min(first + plan.block.inner, plan.dimension)
            yield self._encrypted(self._integers(columns(first, last), last - first))

    def _integers(self, X: NDArray[np.floating], dimension: int) -> Integers:
        """Checked rows at the input scale, shape (n, dimension)."""
        plan = self.plan
        rows = checked_rows(X, plan, dimension)
        if not 1 <= len(rows) <= plan.rows:
            raise InvalidInputError(f"the plan takes 1 to {plan.rows} rows in a request, not {len(rows)}")
        integers: Integers = np.rint(rows * 2.0**plan.input_scale_bits).astype(np.int64)
        return integers

    def _encrypted(self, integers: Integers) -> EncryptedMatrix:
        """Encryption of integers, shape (n, whole inner blocks or the last ones)."""
        plan = self.plan
        row_blocks, inner_blocks, _ = plan.block.counts(len(integers), integers.shape[1], plan.outputs)
        size = row_blocks * inner_blocks * packed_size(plan.parameters.poly_degree, plan.parameters.modulus_bits)
        if size > LARGEST_REQUEST_BYTES:
            raise InvalidInputError(
                f"{len(integers)} rows take {size >> 20} MiB under the silo's plan, more than the "
                f"{LARGEST_REQUEST_BYTES >> 20} MiB of a message: send fewer rows at a time"
            )
        polynomials = pack_rows(integers, plan.block, plan.parameters.poly_degree)
        ciphertexts = tuple(
            self.key.encrypt(self._backend.encode(polynomial))
            for polynomial in polynomials.reshape(-1, plan.parameters.poly_degree)
        )
        return EncryptedMatrix(plan.id, self.key.public_key.id, ciphertexts)

    def decrypt(self, product: EncryptedProduct, rows: int) -> NDArray[np.float64]:
        """Outputs Y, shape (rows, C), of a reply to an encryption of ``rows`` rows, rounded to ``plan.grid``.

        Raises:
            InvalidInputError: the reply is for another plan or key, or has another number of rows.
            DecryptionError: the values are outside the promised range, as under a wrong key, which exhausts the key;
                or it was exhausted by such a failure before.
        """
        plan = self.plan
        if not 1 <= rows <= plan.rows:
            raise InvalidInputError(f"a reply holds 1 to {plan.rows} rows, not {rows}")
        row_blocks, _, output_blocks = plan.block.counts(rows, plan.dimension, plan.outputs)
        if len(product.ciphertexts) != row_blocks * output_blocks:
            raise InvalidInputError(
                f"the reply holds {len(product.ciphertexts)} ciphertexts, the plan asks for "
                f"{row_blocks * output_blocks}; the silo runs an incompatible version, or the reply was cut"
            )
        return self._decrypted(product, rows, plan.outputs)

    def decrypt_part(self, part: EncryptedProduct, first_block: int, rows: int = 1) -> NDArray[np.float64]:
        """Outputs, shape (rows, those of the part), of consecutive output blocks of the only row block, rounded.

        Raises:
            InvalidInputError: the part is for another plan or key, or holds blocks that the plan does not have.
            DecryptionError: the values are outside the promised range, as under a wrong key, which exhausts the key;
                or it was exhausted by such a failure before.
        """
        plan, count = self.plan, len(part.ciphertexts)
        if not 1 <= rows <= min(plan.rows, plan.block.rows):
            raise InvalidInputError(f"a part holds 1 to {min(plan.rows, plan.block.rows)} rows, not {rows}")
        if not (count and 0 <= first_block <= plan.counts[2] - count):
            raise InvalidInputError(
                f"the silo sent {count} output blocks from block {first_block} on of a product that has "
                f"{plan.counts[2]}; it runs an incompatible version"
            )
        outputs = min(plan.outputs - first_block * plan.block.outputs, count * plan.block.outputs)
        return self._decrypted(part, rows, outputs)

    def _decrypted(self, product: EncryptedProduct, rows: int, outputs: int) -> NDArray[np.float64]:
        plan = self.plan
        if product.plan != plan.id or product.key_id != self.key.public_key.id:
            raise InvalidInputError("the reply is for another plan or another key; ask again")
        self._require_unfailed()
        values = np.array([self._outputs(reply) for reply in product.ciphertexts])
        values = values.reshape(-(-rows // plan.block.rows), -1, plan.block.rows, plan.block.outputs)
        rounded = np.rint(values / (plan.output_scale * plan.grid)) * plan.grid
        Y = unpack_outputs(rounded, plan.block, rows, outputs)
        if np.abs(Y).max() > plan.range + plan.precision:
            self.key.leakage.fail()
            raise DecryptionError(
                "the reply decrypts to values outside the promised range: it was made under another key, was damaged, "
                "or is a malicious silo's. Discard it and the key."
            )
        self._require_unfailed()
        return Y

    def _require_unfailed(self) -> None:
        """Refuse to decrypt on: after a failure a key answers nothing, not even what was under way in other threads."""
        if self.key.leakage.failed:
            raise DecryptionError("the key is exhausted: a reply failed to decrypt under it. Generate a new key.")

    def _outputs(self, reply: ReplyCiphertext) -> NDArray[np.float64]:
        """Integer outputs of one reply ciphertext, shape (b·c,)."""
        plan = self.plan
        degree, bits = plan.parameters.poly_degree, plan.reply_bits
        positions = plan.block.output_positions.ravel()
        expected = packed_size(positions.size, bits), packed_size(degree, bits)
        if (len(reply.outputs), len(reply.mask)) != expected:
            raise InvalidInputError("a reply ciphertext has the wrong length: the reply was cut; ask again")
        words = np.zeros((2, degree), dtype=np.uint64)
        words[0, positions] = self._restored(unpack_words(reply.outputs, positions.size, bits))
        words[1] = self._restored(unpack_words(reply.mask, degree, bits))
        ciphertext = ciphertext_from_coefficients(self._backend.context, words)
        self._backend.evaluator.transform_to_ntt_inplace(ciphertext)
        return self._backend.decode(self.key.decrypt(ciphertext))[positions]

    def _restored(self, truncated: Words) -> Words:
        """Words with the dropped low bits set to their middle."""
        dropped = np.uint64(self.plan.dropped_bits)
        middle = np.uint64(1 << (self.plan.dropped_bits - 1))
        restored: Words = (truncated << dropped) + middle
        below_modulus: Words = np.minimum(restored, np.uint64(self.plan.parameters.modulus - 1))
        return below_modulus
