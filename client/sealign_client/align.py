"""Encrypted alignment at the client: send embeddings encrypted, get a cross-covariance, solve for the map.

The silo sees ciphertexts, and the client keeps the map.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, ScaledRows, fit_cross_covariance
from sealign.ckks import Cipher, EncryptedMatrix, PackingPlan
from sealign.encoders import EncoderCard
from sealign.errors import (
    InvalidInputError,
    ReleaseRefusedError,
    SealignError,
    UnavailableError,
    UnknownKeyError,
    UnknownSessionError,
)
from sealign.protocol import AlignmentOffer, CrossCovariancePart, SiloCard
from sealign_client.connection import SiloConnection
from sealign_client.keyring import KeyRing
from sealign_client.unfinished_alignment import UnfinishedAlignment

_ATTEMPTS = 6
_RESTARTS = 3

Run = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Transfer:
    """How far an encrypted alignment has come.

    Attributes:
        sent, received: bytes of ciphertexts that the silo has summed, and that have come back.
        total: of both, at the end.
        note: something that a person should know, such as an interruption; mostly empty.
    """

    sent: int
    received: int
    total: int
    note: str = ""


class EncryptedAlignment:
    """One encrypted alignment. A break is bridged; a silo that has lost its sums is begun with anew.

    Args:
        connection: to the silo.
        keys: the client's secret keys, for an alignment that ends with this process.
        run: runs work in the client's worker thread.
        encoder: the client's encoder.
        silo: what the silo says about itself.
        public_set: digest of the public texts.
        embeddings: of these texts, shape (n, d).
        keep: keeps the map, before the silo hears that all has come and forgets the product.
        unfinished: keeps what another process needs to go on with; None for an alignment that ends with this one.
        observe: told about progress.
        task: a generation task, to align with its states; empty for the silo's own encoder.

    Raises:
        InvalidInputError: embeddings that are not finite or all the same.
    """

    def __init__(
        self,
        connection: SiloConnection,
        keys: KeyRing,
        run: Run,
        encoder: EncoderCard,
        silo: SiloCard,
        public_set: str,
        embeddings: NDArray[np.float32],
        keep: Callable[[AffineMap], None],
        unfinished: UnfinishedAlignment | None,
        observe: Callable[[Transfer], None] | None,
        task: str = "",
    ) -> None:
        self._task = task
        self._connection = connection
        self._keys = keys
        self._run = run
        self._encoder = encoder
        self._silo = silo
        self._public_set = public_set
        self._embeddings = embeddings
        self._source = ScaledRows.of(embeddings)
        self._keep = keep
        self._unfinished = unfinished
        self._observe = observe
        self._cipher: Cipher | None = None
        self._block_bytes = 0
        self._learned: AffineMap | None = None
        self._begin(b"" if unfinished is None else unfinished.session)

    def _begin(self, session: bytes) -> None:
        self._session = session
        self._sent = self._received = 0
        self._parts: list[NDArray[np.float64]] = []
        self._squared_norm = 0.0

    async def learn(self) -> AffineMap:
        """The map, which is kept by then; or an error, no map, and an earlier one as it was.

        Raises:
            UnavailableError: the silo went away and did not come back in time.
            UnknownSessionError: the silo forgot the alignment again and again.
            ReleaseRefusedError: the silo releases nothing more to this client over this set.
            DecryptionError, InvalidInputError: replies that cannot be right.
            StorageError: the map, or what is needed to go on later, could not be written.
        """
        if self._session:
            self._tell("going on with the alignment that was interrupted")
        failures = restarts = 0
        while self._learned is None:
            before = self._sent + self._received
            try:
                await self._attempt()
            except (UnavailableError, UnknownKeyError):
                failures = 1 if self._sent + self._received > before else failures + 1
                if failures == _ATTEMPTS:
                    raise
                self._tell("the silo went away; going on where it stopped as soon as it answers")
                await asyncio.sleep(0.25 * 2**failures)
            except ReleaseRefusedError:
                self._forget()
                raise
            except UnknownSessionError:
                restarts += 1
                if restarts == _RESTARTS:
                    raise
                self._begin(b"")
                self._tell("the silo has restarted or waited too long; starting again")
        return self._learned

    async def _attempt(self) -> None:
        replies = self._connection.align_encrypted(
            self._encoder,
            self._public_set,
            self._source.rows.shape[1],
            self._session,
            len(self._parts),
            self._blocks,
            self._task,
        )
        try:
            async for reply in replies:
                if isinstance(reply, AlignmentOffer):
                    await self._run(self._accept, reply)
                elif isinstance(reply, CrossCovariancePart):
                    await self._take(reply)
                else:
                    self._sent = reply * self._block_bytes
                self._tell()
        except SealignError:
            if self._learned is None:
                raise
            return  # the silo did not hear that all has come: it forgets the product in time
        if self._learned is None:
            raise UnavailableError("the silo ended the alignment before all of it had come")

    def _accept(self, offer: AlignmentOffer) -> None:
        plan = offer.plan
        shape = (len(self._source.scales), self._source.rows.shape[1], self._silo.dimension)
        if (plan.rows, plan.dimension, plan.outputs) != shape or plan.row_norm != 1.0:
            raise InvalidInputError(
                f"the silo offers a product of shape {(plan.rows, plan.dimension, plan.outputs)} for one of {shape}: "
                "it runs an incompatible or faulty version. Nothing was encrypted."
            )
        keys = self._keys if self._unfinished is None else self._unfinished
        if self._cipher is None or self._cipher.plan.id != plan.id:
            self._cipher = Cipher(plan, keys.key(plan.parameters))
        if self._unfinished is not None and self._unfinished.session != offer.session:
            self._unfinished.keep(offer.session, self._cipher.key.public_key, self._embeddings)
        self._session = offer.session
        self._block_bytes = plan.cost.request_bytes // plan.counts[1]
        self._sent = offer.next_block * self._block_bytes

    async def _blocks(self, offer: AlignmentOffer) -> AsyncIterator[tuple[int, EncryptedMatrix]]:
        """Inner blocks from where the silo goes on, each encrypted when it is to be sent."""
        cipher = self._ready()
        if offer.next_block == cipher.plan.counts[1]:
            return
        await self._connection.register(cipher.key.public_key)
        blocks = cipher.encrypt_blocks(self._source.rows, offer.next_block)
        for index in range(offer.next_block, cipher.plan.counts[1]):
            yield index, await self._run(partial(next, blocks))

    async def _take(self, part: CrossCovariancePart) -> None:
        cipher = self._ready()
        plan: PackingPlan = cipher.plan
        if part.index != len(self._parts) or (self._parts and part.squared_norm != self._squared_norm):
            raise InvalidInputError("the silo sends parts of another product; align again")
        rows = min(plan.block.rows, plan.rows - part.index * plan.block.rows)
        self._parts.append(await self._run(cipher.decrypt, part.product, rows))
        self._squared_norm = part.squared_norm
        self._received += part.product.byte_count
        if len(self._parts) == plan.counts[0]:
            await self._run(self._conclude)

    def _ready(self) -> Cipher:
        if self._cipher is None:
            raise InvalidInputError("the silo did not begin with an offer; it runs an incompatible version")
        return self._cipher

    def _conclude(self) -> None:
        """Make the map of the whole product, and keep it."""
        try:
            learned = fit_cross_covariance(
                self._source,
                np.concatenate(self._parts),
                self._squared_norm,
                self._ready().plan.error_std,
                source_fingerprint=self._encoder.fingerprint,
                target_fingerprint=self._silo.encoder,
                public_set=self._public_set,
            )
        except InvalidInputError:
            self._forget()  # the same product would end the same way
            raise
        self._keep(learned)
        self._forget()
        self._learned = learned

    def _forget(self) -> None:
        if self._unfinished is not None:
            self._unfinished.remove()

    def _tell(self, note: str = "") -> None:
        if self._observe is not None:
            cost = None if self._cipher is None else self._cipher.plan.cost
            total = 0 if cost is None else cost.request_bytes + cost.reply_bytes
            self._observe(Transfer(self._sent, self._received, total, note))
