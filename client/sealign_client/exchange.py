"""Encrypted rows to a task of the silo, and what its replies decrypt to: the same for classification and generation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.ckks import Cipher, EncryptedProduct, PackingPlan
from sealign.errors import DecryptionError, InvalidInputError, UnavailableError
from sealign.protocol import RowKind
from sealign_client.results import Timing
from sealign_client.session import Session

if TYPE_CHECKING:
    from sealign_client.transport import Query, Reply

Matrix: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """One version of a task, as one kind of rows is evaluated by it.

    Attributes:
        revision: of the task's card, from which the plan came.
    """

    task: str
    revision: str
    rows: RowKind
    plan: PackingPlan


class Exchange:
    """Queries to one target, and their replies.

    A reply that does not decrypt tells the silo nothing: its key is never used for another exchange, this one goes on
    to its end as if nothing had happened, and only then does :meth:`conclude` raise.
    """

    def __init__(self, session: Session, target: Target) -> None:
        self._session = session
        self._target = target
        self._cipher = session.cipher(target.plan)
        self._failure: DecryptionError | None = None

    async def ask(self, rows: Matrix, send: Callable[[Query], AsyncIterator[Reply]]) -> Matrix:
        """Return the outputs, (n, C), of at most one batch of rows.

        Args:
            rows: prepared for the plan.
            send: sends a query and yields the parts of its reply.

        Raises:
            DecryptionError: the reply does not decrypt to values within the promised range.
            UnavailableError: the reply ended early.
        """
        started = perf_counter()
        query, cipher = await self._encrypted(rows)
        encrypted = perf_counter()
        parts, blocks, decrypting, received, server = list[Matrix](), 0, 0.0, 0, 0.0
        async for reply in send(query):
            if reply.first_block != blocks:
                raise InvalidInputError("The silo sends parts of a reply out of order; it runs an incompatible version.")
            began = perf_counter()
            parts.append(await self._decrypted(cipher, reply, len(rows)))
            decrypting += perf_counter() - began
            received += reply.product.byte_count
            blocks += len(reply.product.ciphertexts)
            server = reply.server_ms
        row_blocks, _, output_blocks = _counts(self._target.plan, len(rows))
        if blocks != row_blocks * output_blocks:
            raise UnavailableError("The silo ended a reply before all of it had come.")
        self._session.note_answer(cipher.key.public_key)
        self.conclude()
        if self._session.observe is not None:
            self._session.observe(
                Timing(
                    encrypt=(encrypted - started) * 1e3,
                    server=server,
                    decrypt=decrypting * 1e3,
                    round_trip=(perf_counter() - started) * 1e3,
                    request_bytes=query.matrix.byte_count,
                    reply_bytes=received,
                )
            )
        return np.concatenate(parts, axis=1)

    async def ask_all(
        self, batches: Sequence[Matrix], send: Callable[[AsyncIterator[Query]], AsyncIterator[Reply]]
    ) -> AsyncIterator[Matrix]:
        """Yield the outputs of batches of rows, in their order; all NaN for a reply that does not decrypt.

        Args:
            batches: prepared for the plan.
            send: sends queries and yields their replies.
        """
        ciphers: list[Cipher] = []

        async def queries() -> AsyncIterator[Query]:
            for batch in batches:
                query, cipher = await self._encrypted(batch)
                ciphers.append(cipher)
                yield query

        answered = 0
        async for reply in send(queries()):
            if answered == len(ciphers):
                raise InvalidInputError("The silo sends more replies than there were queries; it runs a faulty version.")
            cipher, rows = ciphers[answered], len(batches[answered])
            answered += 1
            self._session.note_answer(cipher.key.public_key)
            yield await self._decrypted(cipher, reply, rows)
        if answered != len(batches):
            raise UnavailableError("The silo ended a stream before all replies had come.")

    def conclude(self) -> None:
        """Raise what a reply of this exchange failed with, if any did.

        Raises:
            DecryptionError: a reply did not decrypt to values within the promised range.
        """
        if self._failure is not None:
            raise self._failure

    async def _encrypted(self, rows: Matrix) -> tuple[Query, Cipher]:
        from sealign_client.transport import Query

        if self._failure is None:  # else the silo would see that a reply has failed
            self._cipher = self._session.cipher(self._target.plan)
        cipher, target = self._cipher, self._target
        matrix = await self._session.run(cipher.encrypt, rows)
        key = self._session.unsent(cipher.key.public_key)
        return Query(target.task, target.revision, target.rows, matrix, key), cipher

    async def _decrypted(self, cipher: Cipher, reply: Reply, rows: int) -> Matrix:
        try:
            return await self._session.run(_outputs, cipher, reply.product, reply.first_block, rows)
        except DecryptionError as error:
            self._failure = self._failure or error
            self._session.keys.retire(cipher.key)
            return np.full((rows, self._target.plan.outputs), np.nan)


def _outputs(cipher: Cipher, product: EncryptedProduct, first_block: int, rows: int) -> Matrix:
    if cipher.plan.rows == 1:
        return cipher.decrypt_part(product, first_block)
    return cipher.decrypt(product, rows)


def _counts(plan: PackingPlan, rows: int) -> tuple[int, int, int]:
    return plan.block.counts(rows, plan.dimension, plan.outputs)
