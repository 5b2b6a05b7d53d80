"""How often an identity may ask, over all worker processes of a silo on one machine.

A bucket fills at its tier's rate, and each request takes from it. It is one number: when it will be full again, by the
monotonic clock, which all processes share (the generic cell rate algorithm, ITU-T I.371). The numbers of all identities
are in a file that workers map into memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import monotonic

from sealign.errors import RateLimitedError
from sealign_server.access.policies import Policies

_SLOT = struct.Struct("<Qd")
_SLOTS, _PROBES = 8192, 16
_BYTES = _SLOTS * _SLOT.size
_ROUNDING = 1e-6
"""Of sums of seconds; a caller that waits as long as it was told is let pass."""


@contextmanager
def shared_buckets() -> Iterator[Path]:
    """Make the file of all buckets, for the workers of one silo; it is deleted at the end."""
    with NamedTemporaryFile(prefix="sealign-rates-") as file:
        file.truncate(_BYTES)
        yield Path(file.name)


class Buckets:
    """When each identity's bucket is full again. A process that is killed keeps none waiting.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._slots = mmap.mmap(self._file, _BYTES)

    def take(self, identity: str, now: float, seconds: float, most: float) -> float:
        """Take from a bucket, and return how many seconds too early that is; 0 if it is not, and only then is it taken.

        Args:
            identity: whose bucket it is.
            now: by the clock of all processes.
            seconds: that one request takes to be filled again.
            most: seconds that a whole bucket takes.
        """
        tag = int.from_bytes(sha256(identity.encode("utf-8", "surrogatepass")).digest()[:8], "little") or 1
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            place, full = self._find(tag, now)
            full = max(full, now) + seconds
            early = full - now - most
            if early > _ROUNDING:
                return early
            _SLOT.pack_into(self._slots, place, tag, full)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return 0.0

    def close(self) -> None:
        """Close the file."""
        self._slots.close()
        os.close(self._file)

    def _find(self, tag: int, now: float) -> tuple[int, float]:
        """Return the place of an identity and when its bucket is full; a new one takes the place that is full first."""
        best, best_full = -1, 0.0
        for probe in range(_PROBES):
            place = (tag + probe) % _SLOTS * _SLOT.size
            found, full = _SLOT.unpack_from(self._slots, place)
            if found == tag:
                return place, full
            if best < 0 or full < best_full:
                best, best_full = place, full
        return best, now


class Rates:
    """Limits requests of each identity.

    Args:
        policies: the policy in force, which says at what rate.
        buckets: of all identities.
        now: function that returns seconds.
    """

    def __init__(self, policies: Policies, buckets: Buckets, now: Callable[[], float] = monotonic) -> None:
        self._policies = policies
        self._buckets = buckets
        self._now = now

    def take(self, identity: str) -> None:
        """Count one request.

        Raises:
            RateLimitedError: it comes too early.
            NotPermittedError: the identity has no tier.
        """
        tier = self._policies.current.tier_of(identity)
        if tier.rate is None:
            return
        early = self._buckets.take(identity, self._now(), 1 / tier.rate, tier.most_at_once / tier.rate)
        if early:
            raise RateLimitedError(
                f"this identity may send {tier.rate:g} requests per second, {tier.most_at_once} at once; send this one "
                "again later",
                retry_after=early,
            )
