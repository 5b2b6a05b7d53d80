"""What all calls of a client stand on: one connection, keys, one retry policy, worker threads."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from sealign.app.stamps import Stamp
from sealign.ckks import Cipher, PackingPlan, PublicKey, SecretKey, SecurityTable
from sealign.errors import (
    AuthenticationError,
    InvalidInputError,
    MachineError,
    SealignError,
    UnavailableError,
    UnknownKeyError,
)
from sealign.protocol import SiloCard
from sealign_client.endpoint import Endpoint
from sealign_client.local.keys import KeyRing
from sealign_client.local.silo_keys import SiloTrust
from sealign_client.results import Timing
from sealign_client.retry import RETRIED, Retry

if TYPE_CHECKING:
    import grpc

    from sealign_client.transport import (
        AlignmentCalls,
        ClassificationCalls,
        GenerationCalls,
        SiloConnection,
    )

_log = logging.getLogger("sealign.tls")

_FIRST_SECONDS = 5.0
"""Patience with a silo that has never answered: its address may be wrong."""

_LONGEST_CALL_SECONDS = 3600.0
"""How long a call on an earlier connection may take."""

_RESTARTS = 3

_SENDS = 16
"""Requests that carry a key once the silo has not held one: it has replicas or workers, and each is to get the key."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Calls:
    """The silo's services over one connection."""

    silo: SiloConnection
    alignment: AlignmentCalls
    classification: ClassificationCalls
    generation: GenerationCalls


class Session:
    """A client's session with one silo. It connects when the first call is made.

    Args:
        endpoint: where the silo is.
        keys: secret keys for queries.
        trust: knows the silo's signing key.
        timeout: seconds that a request may take, retries included.
        observe: called with the `Timing` of every request that carries one batch, or asks for one token.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: KeyRing,
        trust: SiloTrust,
        timeout: float,
        observe: Callable[[Timing], None] | None = None,
    ) -> None:
        self.keys = keys
        self.timeout = timeout
        self.observe = observe
        self._endpoint = endpoint
        self._trust = trust
        self._calls: Calls | None = None
        self._seen: tuple[Stamp | None, ...] = ()
        self._retired: set[asyncio.Task[None]] = set()
        self._connecting = asyncio.Lock()
        self._answered = False
        self._key_sends: dict[bytes, int] = {}
        self._sends_per_key = 1
        self._ciphers: dict[str, Cipher] = {}
        self._process = os.getpid()
        self._closed = False
        # One thread for models and files, which are used by one caller at a time, and one for ciphertexts, so that
        # those of some texts are made while others are embedded. The loop stays free.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sealign")
        self._ciphertext_worker = ThreadPoolExecutor(1, thread_name_prefix="sealign-ciphertexts")

    def __reduce__(self) -> str:
        raise MachineError(
            "A client cannot be pickled, nor sent to another process as multiprocessing does: it holds keys. Make a "
            "client in each process."
        )

    @property
    def table(self) -> SecurityTable:
        """The security table that plans must satisfy."""
        return self._endpoint.table

    def require_usable(self) -> None:
        """Refuse use after `close` and in a forked process.

        Raises:
            MachineError: the client is closed, or belongs to the process that this one was forked from.
        """
        if self._process != os.getpid():
            raise MachineError(
                "This client was made before the process forked, and does not work in the new process. Make a client "
                'in each process, and start processes with multiprocessing.get_context("spawn").'
            )
        if self._closed:
            raise MachineError("This client is closed. Make a new one.")

    async def run(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run work on models and files in the worker thread."""
        self.require_usable()
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)

    async def run_ciphertexts(self, work: Callable[..., _T], *arguments: object, brief: bool = False) -> _T:
        """Run work on ciphertexts, while a model may work in the other thread.

        Args:
            brief: whether it takes a millisecond or two. It then runs here: to hand it to a thread and back takes
                longer, and SEAL would hold up this thread all the same.
        """
        self.require_usable()
        if brief:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._ciphertext_worker, work, *arguments)

    async def close(self) -> None:
        """Close the connection, once what runs in the worker threads has ended; keys that are not stored are gone."""
        if self._closed or self._process != os.getpid():
            return
        self._closed = True
        for retired in self._retired:
            retired.cancel()
        if self._calls is not None:
            await self._calls.silo.close()
        self._ciphertext_worker.submit(self.keys.close)
        for worker in (self._ciphertext_worker, self._worker):
            await asyncio.get_running_loop().run_in_executor(None, worker.shutdown)

    async def calls(self) -> Calls:
        """Return the silo's services; connects when they are first needed, and when certificate files were replaced.

        Raises:
            InvalidInputError, AuthenticationError: certificate files that cannot work.
        """
        self.require_usable()
        async with self._connecting:
            stamps = self._endpoint.stamps()
            if self._calls is None:
                self._calls = await self._connected()
            elif stamps != self._seen:
                self._calls = await self._reconnected(self._calls)
            self._seen = stamps
        return self._calls

    async def _reconnected(self, before: Calls) -> Calls:
        """Connect with replaced certificates; with files that cannot work, the connection stays as it is."""
        try:
            calls = await self._connected()
        except (InvalidInputError, AuthenticationError) as error:
            _log.error("The new certificates cannot be used, and the earlier ones stay. %s", error)
            return before
        retired = asyncio.create_task(_retire(before, self.timeout))
        self._retired.add(retired)
        retired.add_done_callback(self._retired.discard)
        _log.info("Certificates were replaced. New connections use them.")
        return calls

    async def _connected(self) -> Calls:
        from sealign_client import transport  # imports gRPC

        credentials: grpc.ChannelCredentials = await self.run(transport.credentials_of, self._endpoint)
        connection = transport.SiloConnection(self._endpoint, credentials, self._trust)
        return Calls(
            connection,
            transport.AlignmentCalls(connection),
            transport.ClassificationCalls(connection),
            transport.GenerationCalls(connection),
        )

    async def describe(self) -> SiloCard:
        """Return what the silo is, and what it knows about the caller."""
        return await self.retried(lambda calls, seconds: calls.silo.describe(seconds))

    def patience(self) -> Retry:
        """Return the retry policy of a new request."""
        return Retry(self.timeout if self._answered else min(self.timeout, _FIRST_SECONDS))

    async def retried(
        self,
        attempt: Callable[[Calls, float], Awaitable[_T]],
        renew: Callable[[SealignError], Awaitable[object]] | None = None,
        *,
        long: bool = False,
    ) -> _T:
        """Return what an attempt gives, which may be made several times.

        Args:
            attempt: gets the services and the seconds that are left.
            renew: describes again what the request was made for, after a state that the silo has changed.
            long: the call is long by nature. Its own seconds do not count, and it is made again three times at most.
        """
        await self.calls()  # may wait for a model that is being loaded, which is not the silo's time
        retry, restarts = self.patience(), 0
        while True:
            started = monotonic()
            try:
                result = await attempt(await self.calls(), retry.remaining)
            except RETRIED as error:
                if long and restarts < _RESTARTS and monotonic() - started > 1.0:
                    restarts += 1
                    retry.progressed()
                await self.mend(error, retry, renew)
            else:
                self._answered = True
                return result

    async def mend(
        self, error: SealignError, retry: Retry, renew: Callable[[SealignError], Awaitable[object]] | None = None
    ) -> None:
        """Do what makes another attempt sensible: wait, send the key again, or describe again.

        Raises:
            SealignError: the error, if there is no time or no attempt left.
        """
        await retry.after(error)
        if isinstance(error, (UnavailableError, UnknownKeyError)):
            self._key_sends.clear()  # another connection, or a silo that has restarted or evicted the key
            if isinstance(error, UnknownKeyError):
                self._sends_per_key = _SENDS
        elif renew is not None and error.status == "FAILED_PRECONDITION":
            await renew(error)

    def cipher(self, plan: PackingPlan, key: SecretKey) -> Cipher:
        """Return the cipher of a plan under a key."""
        made = self._ciphers.get(plan.id)
        if made is None or made.key is not key:
            made = self._ciphers[plan.id] = Cipher(plan, key)
        return made

    def must_send(self, key: PublicKey) -> bool:
        """Return whether a key is to travel with the next request."""
        return self._key_sends.get(key.id, self._sends_per_key) > 0

    def note_answer(self, key: PublicKey) -> None:
        """Note that the silo has answered a request under a key; who has answered holds it."""
        self._answered = True
        self._key_sends[key.id] = max(0, self._key_sends.get(key.id, self._sends_per_key) - 1)


async def _retire(calls: Calls, seconds: float) -> None:
    """Close a connection once nobody begins calls on it, and those in progress have ended."""
    await asyncio.sleep(seconds)
    await calls.silo.close(grace=_LONGEST_CALL_SECONDS)
