"""How often an identity may ask: a bucket that fills at its tier's rate, and that each request takes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from sealign.errors import RateLimitedError
from sealign_server.access.policies import Policies

_BUCKETS = 4096
_ROUNDING = 1e-6
"""Of sums of seconds; a caller that waits as long as it was told is let pass."""


@dataclass
class _Bucket:
    requests: float
    filled: float


class Rates:
    """Counts requests of each identity in this process.

    Args:
        policies: the policy in force, which says at what rate.
        now: function that returns seconds.
    """

    def __init__(self, policies: Policies, now: Callable[[], float] = monotonic) -> None:
        self._policies = policies
        self._now = now
        self._buckets: dict[str, _Bucket] = {}

    def take(self, identity: str) -> None:
        """Count one request.

        Raises:
            RateLimitedError: it comes too early.
            NotPermittedError: the identity has no tier.
        """
        tier = self._policies.current.tier_of(identity)
        if tier.rate is None:
            return
        now, most = self._now(), float(tier.most_at_once)
        bucket = self._buckets.get(identity)
        if bucket is None:
            self._sweep()
            bucket = self._buckets[identity] = _Bucket(most, now)
        bucket.requests = min(most, bucket.requests + (now - bucket.filled) * tier.rate)
        bucket.filled = now
        if bucket.requests < 1 - _ROUNDING:
            raise RateLimitedError(
                f"this identity may send {tier.rate:g} requests per second, {tier.most_at_once} at once; send this one "
                "again later",
                retry_after=(1 - bucket.requests) / tier.rate,
            )
        bucket.requests -= 1

    def _sweep(self) -> None:
        """Drop the buckets that were not used for longest, once there are very many; a new one is full."""
        if len(self._buckets) >= _BUCKETS:
            kept = sorted(self._buckets.items(), key=lambda item: item[1].filled)[_BUCKETS // 2 :]
            self._buckets = dict(kept)
