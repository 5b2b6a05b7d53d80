"""Encrypted alignment at the client: send rows encrypted, get a verified cross-covariance, solve for the map.

The silo sees ciphertexts, and the client retains the map. Every alignment has a secret key of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from math import hypot
from typing import TYPE_CHECKING

import numpy as np
import structlog
from numpy.typing import NDArray

from sealign.alignment import DEFAULT_PENALTIES, AffineMap, MapCovariances, ScaledRows, fit_cross_covariance
from sealign.alignment.cross_covariance import MAP_TOLERANCE, MASKED_TOLERANCE
from sealign.ckks import (
    Cipher,
    EncryptedMatrix,
    SecretKey,
    VerifiedRows,
)
from sealign.ckks.verification import CHECKS
from sealign.encoders import EncoderCard
from sealign.errors import (
    DecryptionError,
    InvalidInputError,
    ReleaseRefusedError,
    SealignError,
    UnavailableError,
    UnknownSessionError,
)
from sealign.protocol import AlignmentOffer, AlignmentRequest, CrossCovariancePart
from sealign_client.local.unfinished import BegunAlignment, Rows, UnfinishedAlignment
from sealign_client.results import Transfer
from sealign_client.retry import TRANSIENT
from sealign_client.session import Session

if TYPE_CHECKING:
    from sealign_client.transport.alignment import AlignmentReply

_log = structlog.get_logger()

_RESTARTS = 3
_ANEW = "the silo has restarted or waited too long; starting again"


@dataclass(frozen=True, eq=False)
class AlignmentTask:
    """What an encrypted alignment is to learn.

    Attributes:
        request: names space, encoder and public set.
        target: the silo's encoder.
        rows: the client's rows of the public set, (n, d), perhaps mapped from a file.
    """

    request: AlignmentRequest
    target: EncoderCard
    rows: Rows


class EncryptedAlignment:
    """One encrypted alignment. A break is bridged; a silo that has lost its sums is begun with anew.

    Args:
        session: with the silo.
        task: what is to be learned.
        unfinished: stores what another process needs to resume it.
        keep: stores the map, before the silo hears that all has come and deletes the product.
        observe: called with the progress.

    Raises:
        InvalidInputError: rows that are not finite or all the same.
    """

    def __init__(
        self,
        session: Session,
        task: AlignmentTask,
        unfinished: UnfinishedAlignment,
        keep: Callable[[AffineMap], None],
        observe: Callable[[Transfer], None] | None,
    ) -> None:
        self._session = session
        self._task = task
        self._source = ScaledRows.of(task.rows)
        self._unfinished = unfinished
        self._keep = keep
        self._observe = observe
        self._learned: AffineMap | None = None
        self._block_bytes = 0
        self._parts: list[NDArray[np.float64]] = []
        self._failure: SealignError | None = None
        self._begin()

    def _begin(self) -> None:
        """Prepare an alignment: the one under way if there is one, else a new one."""
        begun = self._unfinished.begun
        self._key = None if begun is None else begun.key
        self._name = None if begun is None else begun.session
        self._cipher: Cipher | None = None
        self._rows: VerifiedRows | None = None
        self._sent = self._received = 0
        self._parts = []
        self._squared_norm = 0.0

    async def learn(self) -> AffineMap:
        """Return the map, which is stored by then; or raise, and an earlier map is as it was.

        Raises:
            UnavailableError: the silo went away and did not come back in time.
            UnknownSessionError: the silo lost the alignment again and again.
            ReleaseRefusedError: the silo releases nothing more to this client over this set.
            DecryptionError: a reply that is not the product of the encrypted rows.
            InvalidInputError: replies that contradict themselves.
            StorageError: the map, or what is needed to resume later, could not be written.
        """
        if self._unfinished.begun is not None:
            self._tell("resuming the alignment that was interrupted")
        retry, restarts = self._session.patience(), 0
        while self._learned is None:
            before = self._sent + self._received
            try:
                await self._attempt()
            except TRANSIENT as error:
                if self._sent + self._received > before:
                    retry.progressed()
                self._tell("the silo went away; resuming as soon as it answers")
                await self._session.mend(error, retry)
            except ReleaseRefusedError:
                self._unfinished.remove()
                raise
            except UnknownSessionError:
                restarts += 1
                if restarts == _RESTARTS:
                    raise
                self._unfinished.remove()
                self._begin()
                self._tell(_ANEW)
        return self._learned

    async def _attempt(self) -> None:
        if self._key is None:
            self._key = await self._made_key()
        try:
            async with aclosing(await self._replies()) as replies:
                async for reply in replies:
                    if isinstance(reply, AlignmentOffer):
                        begun = self._unfinished.begun
                        await self._session.run(self._accept, reply)
                        if begun is not None and begun.session != reply.session:
                            self._tell(_ANEW)
                    elif isinstance(reply, CrossCovariancePart):
                        await self._take(reply)
                    else:
                        self._sent = reply * self._block_bytes
                    self._tell()
        except SealignError:
            if self._learned is None:
                raise
            return  # the silo did not hear that all has come: it deletes the product in time
        if self._learned is None:
            raise UnavailableError("The silo ended the alignment before all of it had come.")

    async def _replies(self) -> AsyncGenerator[AlignmentReply, None]:
        from sealign_client.transport.alignment import EncryptedRequest

        key = None if self._key is None else self._key.public_key
        request = EncryptedRequest(self._task.request, key, CHECKS, self._name, len(self._parts))
        return (await self._session.calls()).alignment.align_encrypted(request, self._blocks)

    async def _made_key(self) -> SecretKey:
        """Return a key of the parameter set that the silo offers; it has begun then."""
        async with aclosing(await self._replies()) as replies:
            offer = await anext(replies, None)
        if not isinstance(offer, AlignmentOffer):
            raise UnavailableError("The silo ended the alignment before it offered a plan.")
        self._name = offer.session
        return await self._session.run(SecretKey.generate, offer.plan.parameters, self._session.table)

    def _accept(self, offer: AlignmentOffer) -> None:
        plan = offer.plan
        shape = (len(self._source.scales) + CHECKS, self._source.count, self._task.target.dimension)
        if (plan.rows, plan.dimension, plan.outputs) != shape or plan.row_norm != 1.0:
            raise InvalidInputError(
                f"The silo offers a product of shape {(plan.rows, plan.dimension, plan.outputs)} for one of {shape}: "
                "it runs an incompatible or faulty version. Nothing was encrypted."
            )
        key, begun = self._key, self._unfinished.begun
        if key is None or plan.parameters != key.parameters:
            raise InvalidInputError("The silo offers another parameter set than before; it runs a faulty version.")
        if self._cipher is None or self._cipher.plan.id != plan.id:
            self._cipher = Cipher(plan, key)
            source = self._source
            fresh = VerifiedRows.of_columns(source.columns, source.gram, plan, key, np.zeros(plan.outputs))
            self._rows = fresh if begun is None else fresh.restored(begun.checks)
        if self._rows is not None and (begun is None or begun.session != offer.session):
            self._unfinished.keep(BegunAlignment.of(offer.session, self._task.rows, self._rows))
        self._name = offer.session
        self._block_bytes = plan.cost.request_bytes // plan.counts[1]
        self._sent = offer.next_block * self._block_bytes

    async def _blocks(self, offer: AlignmentOffer) -> AsyncIterator[tuple[int, EncryptedMatrix]]:
        """Yield inner blocks from where the silo continues, each encrypted when it is to be sent."""
        cipher, rows = self._ready()
        blocks = cipher.encrypt_blocks(rows.columns, offer.next_block)
        for index in range(offer.next_block, cipher.plan.counts[1]):
            yield index, await self._session.run(partial(next, blocks))

    async def _take(self, part: CrossCovariancePart) -> None:
        cipher, _ = self._ready()
        plan = cipher.plan
        if part.index != len(self._parts) or (self._parts and part.squared_norm != self._squared_norm):
            raise InvalidInputError("The silo sends parts of another product. Align again.")
        rows = min(plan.block.rows, plan.rows - part.index * plan.block.rows)
        self._parts.append(await self._session.run(self._decrypted, cipher, part, rows))
        self._squared_norm = part.squared_norm
        self._received += part.product.byte_count
        if len(self._parts) == plan.counts[0]:
            await self._session.run(self._conclude)

    def _decrypted(self, cipher: Cipher, part: CrossCovariancePart, rows: int) -> NDArray[np.float64]:
        """Return a part of the product; NaN if it does not decrypt, which the silo must not see before the end."""
        try:
            return cipher.decrypt(part.product, rows)
        except DecryptionError as error:
            self._failure = self._failure or error
            return np.full((rows, cipher.plan.outputs), np.nan)

    def _ready(self) -> tuple[Cipher, VerifiedRows]:
        if self._cipher is None or self._rows is None:
            raise InvalidInputError("The silo did not begin with an offer; it runs an incompatible version.")
        return self._cipher, self._rows

    def _conclude(self) -> None:
        """Verify the whole product, make the map of it, and store it."""
        cipher, rows = self._ready()
        try:
            if self._failure is not None:
                raise self._failure
            product = rows.checked(np.concatenate(self._parts))
            learned = self._fitted(product, cipher.plan.error_std)
            learned = replace(learned, covariances=self._masked(rows, product, learned.quality.penalty))
        except (DecryptionError, InvalidInputError):
            self._unfinished.remove()  # the same product would end the same way, and its key is exhausted
            raise
        self._keep(learned)
        self._unfinished.remove()
        self._learned = learned

    def _masked(self, rows: VerifiedRows, product: NDArray[np.float64], penalty: float) -> MapCovariances | None:
        """Return what may be sent back to the silo: of the same map, from a product with noise that hides the key.

        None where the noise would drown it; then the map cannot be registered.
        """
        error = hypot(self._ready()[0].plan.error_std, rows.masking_std(rows.key.leakage.budget / 2))
        try:
            return self._fitted(rows.masked(product), error, (penalty,), MASKED_TOLERANCE).covariances
        except InvalidInputError as problem:
            _log.warning("map cannot be registered", reason=str(problem))
            return None

    def _fitted(
        self,
        product: NDArray[np.float64],
        error: float,
        penalties: Sequence[float] = DEFAULT_PENALTIES,
        tolerance: float = MAP_TOLERANCE,
    ) -> AffineMap:
        return fit_cross_covariance(
            self._source,
            product,
            self._squared_norm,
            error,
            penalties,
            tolerance=tolerance,
            source_fingerprint=self._task.request.encoder.fingerprint,
            target_fingerprint=self._task.target.fingerprint,
            public_set=self._task.request.public_set,
        )

    def _tell(self, note: str = "") -> None:
        if self._observe is not None:
            cost = None if self._cipher is None else self._cipher.plan.cost
            total = 0 if cost is None else cost.request_bytes + cost.reply_bytes
            self._observe(Transfer(self._sent, self._received, total, note))
