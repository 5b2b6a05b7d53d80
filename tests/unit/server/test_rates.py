"""How often an identity may ask."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from sealign.errors import NotPermittedError, OverloadedError, RateLimitedError
from sealign_server.access import Policies, Policy, Rates, Tier

QUICK = Tier(tasks=["*"], unlimited=True, rate=10.0, burst=3)
SLOW = Tier(tasks=["*"], unlimited=True, rate=0.5)
FREE = Tier(tasks=["*"], unlimited=True)


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def rates(clock: Clock) -> Rates:
    identities = {"CN=quick": "quick", "CN=another": "quick", "CN=slow": "slow", "CN=free": "free"}
    policy = Policy({"quick": QUICK, "slow": SLOW, "free": FREE}, identities, None, None)
    return Rates(Policies(Path("/nonexistent"), policy), clock)


def taken(rates: Rates, identity: str, most: int) -> int:
    """How many requests are let pass at once."""
    passed = 0
    with suppress(RateLimitedError):
        while passed < most:
            rates.take(identity)
            passed += 1
    return passed


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    limited = rates(clock)
    assert taken(limited, "CN=quick", 9) == 3
    with pytest.raises(OverloadedError, match="10 requests per second, 3 at once") as caught:
        limited.take("CN=quick")
    assert caught.value.retry_after == pytest.approx(0.1)
    clock.seconds += 0.1
    assert taken(limited, "CN=quick", 9) == 1
    clock.seconds += 60
    assert taken(limited, "CN=quick", 9) == 3


def test_identities_do_not_share_and_some_have_no_rate() -> None:
    limited = rates(Clock())
    assert taken(limited, "CN=quick", 9) == 3
    assert taken(limited, "CN=another", 9) == 3
    assert taken(limited, "CN=slow", 9) == 1
    assert taken(limited, "CN=free", 1000) == 1000
    with pytest.raises(NotPermittedError):
        limited.take("CN=stranger")


def test_very_many_identities_are_not_held_for_ever() -> None:
    clock = Clock()
    policy = Policy({"quick": QUICK}, {}, "quick", None)
    limited = Rates(Policies(Path("/nonexistent"), policy), clock)
    for number in range(10_000):
        limited.take(f"CN={number}")
        clock.seconds += 0.001
    assert len(limited._buckets) <= 4096
    assert taken(limited, "CN=9999", 9) == 2
