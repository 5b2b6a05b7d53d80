"""The bounded cache of clients' public keys."""

from __future__ import annotations

import asyncio

import pytest

from sealign.ckks import PARAMETER_SETS, PublicKey, SecretKey, SeededCiphertext
from sealign.errors import InvalidInputError, UnknownKeyError
from sealign_server.public_keys import PublicKeyCache

PARAMETERS = PARAMETER_SETS["ckks-2048-40"]


def public_key() -> PublicKey:
    return SecretKey.generate(PARAMETERS).public_key


def test_a_key_is_named_by_its_content_and_held_once() -> None:
    cache, key = PublicKeyCache(4, zeros_per_key=1), public_key()
    assert cache.register(key) == cache.register(PublicKey(key.parameters, key.seeded)) == key.id
    assert len(cache) == 1
    assert cache.pool(key.id).key == key


def test_the_least_recently_used_key_is_forgotten() -> None:
    cache, keys = PublicKeyCache(2, zeros_per_key=0), [public_key() for _ in range(3)]
    cache.register(keys[0])
    cache.register(keys[1])
    cache.pool(keys[0].id)
    cache.register(keys[2])
    assert len(cache) == 2
    cache.pool(keys[0].id)
    with pytest.raises(UnknownKeyError, match="upload the key and ask again"):
        cache.pool(keys[1].id)


def test_a_malformed_key_is_not_held() -> None:
    cache = PublicKeyCache(2, zeros_per_key=0)
    with pytest.raises(InvalidInputError):
        cache.register(PublicKey(PARAMETERS, SeededCiphertext(b"", b"")))
    assert len(cache) == 0


async def test_idle_time_fills_the_pools_of_the_most_recent_keys() -> None:
    cache, keys = PublicKeyCache(4, zeros_per_key=2, warm_keys=1), [public_key() for _ in range(2)]
    for key in keys:
        cache.register(key)
    warming = asyncio.create_task(cache.keep_warm())
    for _ in range(50):
        await asyncio.sleep(0)
    assert [cache._pools[key.id].is_full for key in keys] == [False, True]
    assert cache.pool(keys[0].id) is not None  # used again: now it is the most recent
    for _ in range(50):
        await asyncio.sleep(0)
    assert cache._pools[keys[0].id].is_full
    warming.cancel()
