"""Caches that are bounded in bytes, in which nobody can evict another below its fair share."""

from __future__ import annotations

import asyncio

import pytest

from sealign.ckks import PARAMETER_SETS, PublicKey, SecretKey, SeededCiphertext
from sealign.errors import InvalidInputError, UnknownKeyError
from sealign_server.serving.cache import FairCache
from sealign_server.serving.public_keys import PublicKeys

PARAMETERS = PARAMETER_SETS["ckks-2048-40"]
KEY_BYTES = 64 + 10240 + 16 * 2048


def public_key() -> PublicKey:
    return SecretKey.generate(PARAMETERS).public_key


def test_a_flood_evicts_the_floods_own() -> None:
    cache: FairCache[int] = FairCache(100)
    for key in range(3):
        cache.put("victim", key, key, 10)
    for key in range(1000):
        cache.put("flood", key, key, 10)
    assert [cache.get("victim", key) for key in range(3)] == [0, 1, 2]
    assert cache.bytes_of("flood") == 70
    for other in range(4):  # now the victim's fair share is a sixth
        cache.put(f"other {other}", 0, 0, 10)
    assert [cache.get("victim", key) for key in range(3)] == [0, 1, 2]
    assert cache.bytes_of("flood") == 30


def test_the_least_recently_used_goes_first() -> None:
    cache: FairCache[str] = FairCache(20)
    cache.put("a", 1, "one", 10)
    cache.put("a", 2, "two", 10)
    assert cache.get("a", 1) == "one"
    cache.put("a", 3, "three", 10)
    assert (cache.get("a", 1), cache.get("a", 2), cache.get("a", 3)) == ("one", None, "three")
    cache.drop("a", 1)
    assert cache.bytes_of("a") == 10
    assert len(cache) == 1


def test_what_is_larger_than_everything_is_held_alone() -> None:
    cache: FairCache[str] = FairCache(20)
    cache.put("a", 1, "small", 10)
    cache.put("b", 1, "large", 30)
    assert cache.get("a", 1) is None or cache.get("b", 1) is None
    assert len(cache) == 1


def test_a_key_serves_the_identity_that_sent_it_and_no_other() -> None:
    keys, key = PublicKeys(1 << 20, zeros_per_key=0), public_key()
    assert keys.pool("CN=a", key.id, key).key == key
    assert keys.pool("CN=a", key.id).key == key
    with pytest.raises(UnknownKeyError, match="send the key with the request"):
        keys.pool("CN=b", key.id)
    assert len(keys) == 1


def test_many_keys_of_one_client_evict_nobody_elses() -> None:
    keys, mine = PublicKeys(8 * KEY_BYTES, zeros_per_key=0), public_key()
    keys.pool("CN=victim", mine.id, mine)
    sent = [public_key() for _ in range(12)]
    for key in sent:
        keys.pool("CN=flood", key.id, key)
    assert keys.pool("CN=victim", mine.id)
    assert len(keys) == 8
    with pytest.raises(UnknownKeyError):
        keys.pool("CN=flood", sent[0].id)


def test_keys_that_cannot_be_used_are_not_held() -> None:
    keys, key = PublicKeys(1 << 20, zeros_per_key=0), public_key()
    malformed = PublicKey(PARAMETERS, SeededCiphertext(b"", b""))
    with pytest.raises(InvalidInputError):
        keys.pool("CN=a", malformed.id, malformed)
    with pytest.raises(InvalidInputError, match="another public key"):
        keys.pool("CN=a", b"\0" * 32, key)
    assert len(keys) == 0


async def test_idle_time_fills_the_pool_of_each_clients_recent_key() -> None:
    keys, sent = PublicKeys(1 << 20, zeros_per_key=2), [public_key() for _ in range(3)]
    for identity, key in zip(("CN=a", "CN=a", "CN=b"), sent, strict=True):
        keys.pool(identity, key.id, key)
    idle = False
    warming = asyncio.create_task(keys.keep_warm(lambda: idle))
    await asyncio.sleep(0.02)
    pools = [keys.pool(identity, key.id) for identity, key in zip(("CN=a", "CN=b"), sent[1:], strict=True)]
    assert not any(pool.is_full for pool in pools)  # there is work
    idle = True
    await asyncio.sleep(0.2)
    assert all(pool.is_full for pool in pools)
    assert not keys.pool("CN=a", sent[0].id).is_full
    warming.cancel()
