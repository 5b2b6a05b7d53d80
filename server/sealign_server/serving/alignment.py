"""Alignments under way in one process: one for each identity, several in all, within a bound of memory."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TypeVar

import structlog

from sealign.ckks import PublicKey
from sealign.errors import InvalidInputError, OverloadedError, ReleaseRefusedError, UnknownSessionError
from sealign.protocol import AlignmentOffer, AlignmentRequest
from sealign_server.ledger import Release
from sealign_server.serving.encrypted_alignment import EncryptedAlignment, rows_bytes
from sealign_server.serving.plain_alignment import PlainAlignment, plain_bytes
from sealign_server.serving.space import Space
from sealign_server.settings import ServingOptions
from sealign_server.store import SESSION_BYTES, Undelivered

_log = structlog.get_logger()

_T = TypeVar("_T")


class EncryptedSession:
    """An encrypted alignment under a name with which its client can come back to it.

    Attributes:
        result: made once all blocks are summed.
    """

    def __init__(self, space: Space, alignment: EncryptedAlignment) -> None:
        self.id = secrets.token_bytes(SESSION_BYTES)
        self.space = space
        self.alignment = alignment
        self.result: Undelivered | None = None
        self.attachment: object | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()

    def offer(self) -> AlignmentOffer:
        """Return what the client needs to continue."""
        return AlignmentOffer(self.id, self.alignment.plan, self.alignment.next_block)

    def finish(self) -> Undelivered:
        """Make the product, and keep it until the client has confirmed it.

        Raises:
            StorageError: it could not be kept; nothing of it may be sent.
        """
        alignment = self.alignment
        about = _about(alignment.release)
        self.result = Undelivered(self.id, alignment.release.identity, about, alignment.plan, alignment.finish())
        self.space.store.undelivered.keep(self.result)
        return self.result

    async def exclusively(self, attachment: object, work: Callable[[], _T]) -> _T:
        """Work on the session in a thread, alone; work that has begun ends even if its call does not wait.

        Raises:
            UnknownSessionError: the client has come back with another call.
        """

        async def alone() -> _T:
            async with self._lock:
                if self.attachment is not attachment:
                    raise UnknownSessionError("the client has come back to this alignment with another call")
                return await asyncio.to_thread(work)

        return await asyncio.shield(asyncio.ensure_future(alone()))


class Alignments:
    """All alignments of a process. Memory is declared by a header and checked before it is taken.

    Args:
        options: limits.
    """

    def __init__(self, options: ServingOptions) -> None:
        self._options = options
        self._bytes: dict[str, int] = {}
        self._sessions: dict[str, EncryptedSession] = {}

    @contextmanager
    def plain(self, space: Space, identity: str, request: AlignmentRequest) -> Iterator[Callable[[], PlainAlignment]]:
        """Reserve room for a plain alignment; yields the function that begins it, which reads files.

        Raises:
            OverloadedError: the identity is aligning already, or too many others are.
            InvalidInputError: it would take more memory than the silo gives to alignments.
            NotFoundError: the space does not hold the public set.
        """
        self._take(identity, plain_bytes(space, request), request)
        try:
            yield lambda: PlainAlignment(space, identity, request)
        finally:
            self._bytes.pop(identity, None)

    async def begin(
        self, space: Space, request: AlignmentRequest, release: Release, key: PublicKey | None
    ) -> EncryptedSession:
        """Return a session for a new encrypted alignment; one that its client has left is dropped for it.

        Raises:
            OverloadedError: the identity is aligning already, or too many others are.
            ReleaseRefusedError: nothing more is released to this identity over this set.
            InvalidInputError, NotFoundError: as `EncryptedAlignment`.
        """
        identity = release.identity
        self._take(identity, rows_bytes(space, request), request)
        try:
            await asyncio.to_thread(space.store.undelivered.require_room, identity, self._options.undelivered_hours)
            await asyncio.to_thread(space.releases.require_open, release)
            alignment = await asyncio.to_thread(EncryptedAlignment, space, request, release, key)
            self._grow(identity, alignment.byte_count)
        except BaseException:
            self._bytes.pop(identity, None)
            raise
        session = self._sessions[identity] = EncryptedSession(space, alignment)
        _log.info(
            "encrypted alignment planned" if key is None else "encrypted alignment begun",
            space=space.name,
            identity=identity,
            encoder=release.encoder,
            rows=release.rows,
            dimension=release.dimension,
        )
        return session

    def find(self, name: bytes, release: Release) -> EncryptedSession | None:
        """Return the session that a client comes back to; None if it is gone, or another identity's or request's."""
        session = self._sessions.get(release.identity)
        if session is None or session.id != name or session.alignment.release != release:
            return None
        return session

    def attach(self, session: EncryptedSession) -> object:
        """Give a session to a call; a call that had it loses it. Returns what proves possession."""
        session.attachment = object()
        if session.expiry is not None:
            session.expiry.cancel()
        return session.attachment

    def detach(self, session: EncryptedSession, attachment: object, *, done: bool) -> None:
        """Note that the call has ended; the session ends at once if ``done``, else when its client does not return."""
        if session.attachment is not attachment:
            return
        session.attachment = None
        if done:
            self._drop(session)
        else:
            loop = asyncio.get_running_loop()
            session.expiry = loop.call_later(self._options.alignment_seconds, self._expire, session)

    def undelivered(self, space: Space, session: bytes, release: Release) -> Undelivered:
        """Return a finished result that any worker has kept.

        Raises:
            UnknownSessionError: there is none.
            StorageError: its file is damaged.
        """
        store = space.store.undelivered
        store.sweep(self._options.undelivered_hours)
        result = store.find(session, release.identity, _about(release), self._options.security_table)
        if result is None:
            raise UnknownSessionError(
                "the silo does not hold this encrypted alignment: it restarted, another of its workers does, or the "
                "client was away for too long; start again"
            )
        return result

    @staticmethod
    def record(space: Space, result: Undelivered) -> None:
        """Count a release before any of it is sent; sent again, it counts once.

        Raises:
            ReleaseRefusedError: nothing more is released to this identity over this set; the result is deleted.
            StorageError: it cannot be counted; nothing may be sent.
        """
        release = Release(**result.about)  # type: ignore[arg-type]
        try:
            counted = space.releases.record(release, result.session.hex())
        except ReleaseRefusedError:
            space.store.undelivered.remove(result)
            raise
        if counted:
            _log.info("cross-covariance released", **_about(release))

    def _take(self, identity: str, size: int, request: AlignmentRequest) -> None:
        """Reserve memory for an identity."""
        session = self._sessions.get(identity)
        if session is not None and session.attachment is None:
            self._drop(session)
        if identity in self._bytes:
            raise OverloadedError(
                "this client is aligning already; let that end first, or wait until it has expired", retry_after=5.0
            )
        if len(self._bytes) >= self._options.max_alignments:
            raise OverloadedError(
                f"the silo is aligning {len(self._bytes)} other clients, or waits up to "
                f"{self._options.alignment_seconds:.0f} s for them to come back; try again later",
                retry_after=5.0,
            )
        self._require_room(identity, size, request.encoder.dimension)
        self._bytes[identity] = size

    def _grow(self, identity: str, size: int) -> None:
        self._require_room(identity, size, None)
        self._bytes[identity] = size

    def _require_room(self, identity: str, size: int, dimension: int | None) -> None:
        capacity = self._options.alignment_bytes
        if size > capacity:
            of = "" if dimension is None else f" of {dimension} dimensions"
            raise InvalidInputError(
                f"this alignment{of} would take {size >> 20} MiB, and the silo gives {capacity >> 20} MiB to "
                "alignments (--alignment-memory-mb): use an encoder of fewer dimensions or a smaller public set"
            )
        others = sum(taken for other, taken in self._bytes.items() if other != identity)
        if others + size > capacity:
            raise OverloadedError("the memory for alignments is in use; try again later", retry_after=5.0)

    def _expire(self, session: EncryptedSession) -> None:
        alignment = session.alignment
        _log.warning(
            "encrypted alignment expired",
            identity=alignment.release.identity,
            blocks=alignment.next_block,
            of=alignment.blocks,
        )
        self._drop(session)

    def _drop(self, session: EncryptedSession) -> None:
        if session.expiry is not None:
            session.expiry.cancel()
        identity = session.alignment.release.identity
        if self._sessions.get(identity) is session:
            del self._sessions[identity]
            self._bytes.pop(identity, None)


def _about(release: Release) -> dict[str, str | int]:
    """Return what a client asks for, by which it finds its result again."""
    facts = asdict(release)
    return {name: value for name, value in facts.items() if name not in ("created", "number") and value is not None}
