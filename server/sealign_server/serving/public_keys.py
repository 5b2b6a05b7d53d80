"""The clients' public keys that a process holds, each with encryptions of zero made while idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sealign.ckks import PublicKey, ZeroPool
from sealign.errors import InvalidInputError, UnknownKeyError
from sealign_server.serving.cache import FairCache


class PublicKeys:
    """Public keys by identity and content, bounded in bytes. A key serves the identity that sent it and no other.

    Args:
        capacity: bytes, encryptions of zero included.
        zeros_per_key: encryptions of zero to keep ready for the most recent key of each identity.
    """

    def __init__(self, capacity: int, zeros_per_key: int) -> None:
        self._pools: FairCache[ZeroPool] = FairCache(capacity)
        self._zeros_per_key = zeros_per_key
        self._used = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pools)

    @property
    def zeros_ready(self) -> int:
        """Encryptions of zero that are ready, for the most recent key of each identity."""
        return sum(pool.ready for pool in self._pools.recent())

    def holds(self, identity: str, key_id: bytes) -> bool:
        """Return whether a key of an identity is held."""
        return self._pools.get(identity, key_id) is not None

    def pool(self, identity: str, key_id: bytes, key: PublicKey | None = None) -> ZeroPool:
        """Return the encryptions of zero under a key of an identity.

        Args:
            identity: whose query it is.
            key_id: the key that the query names.
            key: as it came with the query, if it did.

        Raises:
            UnknownKeyError: it did not, and the key was never sent, or was evicted.
            InvalidInputError: the key is malformed, or not the one that the query names.
        """
        pool = self._pools.get(identity, key_id)
        if pool is None:
            if key is None:
                raise UnknownKeyError(
                    "the silo does not hold this public key (it restarted, or holds too many): send the key with the "
                    "request"
                )
            if key.id != key_id:
                raise InvalidInputError("the query names another public key than came with it")
            pool = ZeroPool(key, self._zeros_per_key)
            degree = key.parameters.poly_degree
            # SEAL's key and each encryption of zero: two polynomials of 8-byte words.
            size = key.byte_count + 16 * degree * (1 + self._zeros_per_key)
            self._pools.put(identity, key_id, pool, size)
        self._used.set()
        return pool

    async def keep_warm(self, is_idle: Callable[[], bool]) -> None:
        """Fill the pools of recent keys whenever there is nothing else to do; never returns."""
        while True:
            await self._used.wait()
            self._used.clear()
            for pool in self._pools.recent():
                while not pool.is_full:
                    if is_idle():
                        pool.prepare()
                    await asyncio.sleep(0 if is_idle() else 0.002)
