"""The clients' public keys that a silo holds, each with encryptions of zero made while idle."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from sealign.ckks import PublicKey, ZeroPool
from sealign.errors import UnknownKeyError


class PublicKeyCache:
    """A bounded cache, content-addressed: the least recently used key is forgotten first.

    Args:
        capacity: how many keys to hold.
        zeros_per_key: encryptions of zero to keep ready for each of the most recent keys.
        warm_keys: for how many keys to keep them ready.
    """

    def __init__(self, capacity: int, zeros_per_key: int, warm_keys: int = 64) -> None:
        self._capacity = capacity
        self._zeros_per_key = zeros_per_key
        self._warm_keys = warm_keys
        self._pools: OrderedDict[bytes, ZeroPool] = OrderedDict()
        self._used = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pools)

    def register(self, key: PublicKey) -> bytes:
        """Hold a key and return its name. Registering a key again changes nothing.

        Raises:
            InvalidInputError: the key is malformed or not in seeded form.
        """
        if key.id not in self._pools:
            self._pools[key.id] = ZeroPool(key, self._zeros_per_key)
            if len(self._pools) > self._capacity:
                self._pools.popitem(last=False)
        self._touch(key.id)
        return key.id

    def pool(self, key_id: bytes) -> ZeroPool:
        """The encryptions of zero under a key.

        Raises:
            UnknownKeyError: the key was never registered, or was forgotten.
        """
        if key_id not in self._pools:
            raise UnknownKeyError(
                "the silo does not hold this public key (it restarted, or holds too many): upload the key and ask again"
            )
        self._touch(key_id)
        return self._pools[key_id]

    def _touch(self, key_id: bytes) -> None:
        self._pools.move_to_end(key_id)
        self._used.set()

    async def keep_warm(self) -> None:
        """Fill the pools of the most recent keys whenever there is nothing else to do; never returns."""
        while True:
            await self._used.wait()
            self._used.clear()
            for key_id in list(reversed(self._pools))[: self._warm_keys]:
                pool = self._pools.get(key_id)
                while pool is not None and not pool.is_full:
                    pool.prepare()
                    await asyncio.sleep(0)  # queries go first
