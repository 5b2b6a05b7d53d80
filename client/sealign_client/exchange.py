"""Encrypted rows to a task of the silo, and what its replies decrypt to: the same for classification and generation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.ckks import (
    Cipher,
    EncryptedMatrix,
    EncryptedProduct,
    PackingPlan,
    SecretKey,
    VerifiedRows,
    free_rows,
    reply_bits_told,
)
from sealign.ckks.verification import CHECKS
from sealign.errors import DecryptionError, InvalidInputError, UnavailableError
from sealign.protocol import RowKind
from sealign_client.results import Timing
from sealign_client.session import Session

if TYPE_CHECKING:
    from sealign_client.transport import Query, Reply

Matrix: TypeAlias = NDArray[np.float64]


class Watch(Protocol):
    """Sees what crosses the network in one call."""

    def sent(self, query: Query) -> None:
        """A query is about to be sent."""

    def received(self, reply: Reply) -> None:
        """A reply has come."""


_FEW = 4
"""Ciphertexts that are made or read in 2 ms or so."""


@dataclass(frozen=True)
class Target:
    """One version of a task, as one kind of rows is evaluated by it.

    Attributes:
        revision: of the task's card, from which the plan came.
        labels: number of answers that a row can have, which decides what an answer can tell about the key.
        verify: whether batches carry check rows; None for where they cost no more ciphertexts than they save.
    """

    task: str
    revision: str
    rows: RowKind
    plan: PackingPlan
    labels: int
    verify: bool | None = None

    @property
    def checks(self) -> int:
        """Check rows in a whole batch."""
        return CHECKS if self.verify or (self.verify is None and self.plan.rows > 4 * CHECKS) else 0

    def batches(self, rows: Matrix, budget: float) -> list[Matrix]:
        """Return rows in batches, each with room for its check rows.

        Args:
            rows: prepared for the plan.
            budget: bits that the answers to one batch may tell about a key.

        Raises:
            InvalidInputError: batches are to be verified and the plan is too small for that.
        """
        size = self.plan.rows - self.checks
        if size < 1:
            raise InvalidInputError(f"A batch of {self.plan.rows} rows has no room to be verified. Leave verify out.")
        while size > 1 and reply_bits_told(size, self.labels, verified=self.checks > 0) + 2 > budget:
            size //= 2
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def verifies(self, rows: int) -> bool:
        """Return whether a batch of so many rows carries check rows: a last, short one may have room in any plan."""
        return self.checks > 0 or (self.verify is None and free_rows(self.plan, rows) >= CHECKS)


@dataclass(frozen=True, eq=False)
class _Asked:
    """A query that was encrypted, and what its reply is read with."""

    matrix: EncryptedMatrix
    cipher: Cipher
    rows: int
    verified: VerifiedRows | None = field(default=None)

    def outputs(self, product: EncryptedProduct, first_block: int) -> Matrix:
        """Decrypt a reply, or a part of the reply to one row."""
        if self.cipher.plan.rows == 1:
            return self.cipher.decrypt_part(product, first_block)
        if self.verified is None:
            return self.cipher.decrypt(product, self.rows)
        return self.verified.checked(self.cipher.decrypt(product, self.verified.total))

    @property
    def reply_blocks(self) -> int:
        """Ciphertexts of a whole reply."""
        plan = self.cipher.plan
        sent = self.rows if self.verified is None else self.verified.total
        row_blocks, _, output_blocks = plan.block.counts(sent, plan.dimension, plan.outputs)
        return row_blocks * output_blocks


class Exchange:
    """Queries to one target, and their replies.

    A reply that does not decrypt tells the silo nothing: its key is never used for another exchange, this one goes on
    to its end as if nothing had happened, under the same key, and only then does :meth:`conclude` raise.

    Attributes:
        timing: of the last batch that :meth:`ask` asked; None before.
    """

    def __init__(self, session: Session, target: Target) -> None:
        self._session = session
        self._target = target
        self._failure: DecryptionError | None = None
        self.timing: Timing | None = None
        self._key: SecretKey | None = None
        self._sent: set[bytes] = set()
        self._answered: set[bytes] = set()

    async def ask(self, rows: Matrix, send: Callable[[Query], AsyncIterator[Reply]]) -> Matrix:
        """Return the outputs, (n, C), of at most one batch of rows.

        Args:
            rows: prepared for the plan.
            send: sends a query and yields the parts of its reply.

        Raises:
            UnavailableError: the reply ended early.
        """
        started = perf_counter()
        asked = await self._encrypted(rows)
        encrypted = perf_counter()
        parts, blocks, decrypting, received, server = list[Matrix](), 0, 0.0, 0, 0.0
        async for reply in send(self._query(asked)):
            if reply.first_block != blocks:
                raise InvalidInputError("The silo sends parts of a reply out of order; it runs a faulty version.")
            began = perf_counter()
            parts.append(await self._decrypted(asked, reply))
            decrypting += perf_counter() - began
            received += reply.product.byte_count
            blocks += len(reply.product.ciphertexts)
            server = reply.server_ms
        if blocks != asked.reply_blocks:
            raise UnavailableError("The silo ended a reply before all of it had come.")
        self.timing = Timing(
            encrypt=(encrypted - started) * 1e3,
            server=server,
            decrypt=decrypting * 1e3,
            round_trip=(perf_counter() - started) * 1e3,
            request_bytes=asked.matrix.byte_count,
            reply_bytes=received,
        )
        if self._session.observe is not None:
            self._session.observe(self.timing)
        return np.concatenate(parts, axis=1)

    async def ask_all(
        self, batches: Sequence[Matrix], send: Callable[[AsyncIterator[Query]], AsyncIterator[Reply]]
    ) -> AsyncIterator[Matrix]:
        """Yield the outputs of batches of rows, in their order; NaN for a reply that does not decrypt.

        Args:
            batches: prepared for the plan.
            send: sends queries and yields their replies.

        Raises:
            UnavailableError: the stream ended early.
        """
        waiting: list[_Asked] = []

        async def queries() -> AsyncIterator[Query]:
            for batch in batches:
                waiting.append(await self._encrypted(batch))
                yield self._query(waiting[-1], streamed=True)

        answered = 0
        async for reply in send(queries()):
            if not waiting:
                raise InvalidInputError("The silo sends more replies than it got queries; it runs a faulty version.")
            answered += 1
            yield await self._decrypted(waiting.pop(0), reply)
        if answered != len(batches):
            raise UnavailableError("The silo ended a stream before all replies had come.")

    def conclude(self) -> None:
        """Raise what a reply of this exchange failed with, if any did.

        Raises:
            DecryptionError: a reply did not decrypt to the product of the rows; its key is not used again.
        """
        if self._failure is not None:
            raise self._failure

    def _query(self, asked: _Asked, *, streamed: bool = False) -> Query:
        from sealign_client.transport import Query

        key, target = asked.cipher.key.public_key, self._target
        # A stream carries its key always: it is long, and whichever replica gets it needs nothing else.
        known = key.id in self._sent or not (streamed or self._session.must_send(key))
        self._sent.add(key.id)
        return Query(target.task, target.revision, target.rows, asked.matrix, None if known else key)

    async def _encrypted(self, rows: Matrix) -> _Asked:
        plan = self._target.plan
        row_blocks, inner_blocks, _ = plan.block.counts(len(rows), plan.dimension, plan.outputs)
        brief = row_blocks * inner_blocks <= _FEW and not self._session.keys.are_stored
        return await self._session.run_ciphertexts(self._encrypt, rows, brief=brief)

    def _encrypt(self, rows: Matrix) -> _Asked:
        target, plan = self._target, self._target.plan
        verifies = target.verifies(len(rows))
        key = self._key = self._session.keys.key_for(
            plan.parameters, rows=len(rows), labels=target.labels, verified=verifies, held=self._key
        )
        cipher = self._session.cipher(plan, key)
        verified = VerifiedRows.of(rows, plan, key) if verifies else None
        return _Asked(cipher.encrypt(rows if verified is None else verified.rows), cipher, len(rows), verified)

    async def _decrypted(self, asked: _Asked, reply: Reply) -> Matrix:
        key = asked.cipher.key.public_key
        if key.id not in self._answered:
            self._answered.add(key.id)
            self._session.note_answer(key)
        try:
            product = reply.product
            brief = len(product.ciphertexts) <= _FEW
            return await self._session.run_ciphertexts(asked.outputs, product, reply.first_block, brief=brief)
        except DecryptionError as error:
            self._failure = self._failure or error
            await self._session.run_ciphertexts(self._session.keys.retire, asked.cipher.key)
            return np.full((asked.rows, self._target.plan.outputs), np.nan)
