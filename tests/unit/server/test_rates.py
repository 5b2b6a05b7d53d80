"""How often an identity may ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from time import monotonic

import pytest

from sealign.errors import NotPermittedError, OverloadedError, RateLimitedError
from sealign_server.access import Buckets, Policies, Policy, Rates, Tier, shared_buckets

QUICK = Tier(tasks=["*"], unlimited=True, rate=10.0, burst=3)
SLOW = Tier(tasks=["*"], unlimited=True, rate=0.5)
SHARED = Tier(tasks=["*"], unlimited=True, rate=200.0, burst=50)
FREE = Tier(tasks=["*"], unlimited=True)


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def buckets() -> Iterator[Buckets]:
    with shared_buckets() as path:
        made = Buckets(path)
        yield made
        made.close()


def rates(clock: Clock, buckets: Buckets) -> Rates:
    identities = {"CN=quick": "quick", "CN=another": "quick", "CN=slow": "slow", "CN=free": "free"}
    policy = Policy({"quick": QUICK, "slow": SLOW, "free": FREE}, identities, None, None)
    return Rates(Policies(Path("/nonexistent"), policy), buckets, clock)


def taken(rates: Rates, identity: str, most: int) -> int:
    """How many requests are let pass at once."""
    passed = 0
    with suppress(RateLimitedError):
        while passed < most:
            rates.take(identity)
            passed += 1
    return passed


def test_a_burst_then_the_rate(buckets: Buckets) -> None:
    clock = Clock()
    limited = rates(clock, buckets)
    assert taken(limited, "CN=quick", 9) == 3
    with pytest.raises(OverloadedError, match="10 requests per second, 3 at once") as caught:
        limited.take("CN=quick")
    assert caught.value.retry_after == pytest.approx(0.1)
    clock.seconds += 0.1
    assert taken(limited, "CN=quick", 9) == 1
    clock.seconds += 60
    assert taken(limited, "CN=quick", 9) == 3


def test_identities_do_not_share_and_some_have_no_rate(buckets: Buckets) -> None:
    limited = rates(Clock(), buckets)
    assert taken(limited, "CN=quick", 9) == 3
    assert taken(limited, "CN=another", 9) == 3
    assert taken(limited, "CN=slow", 9) == 1
    assert taken(limited, "CN=free", 1000) == 1000
    with pytest.raises(NotPermittedError):
        limited.take("CN=stranger")


def test_identities_beyond_the_table_take_the_places_of_those_that_are_full_first(buckets: Buckets) -> None:
    clock = Clock()
    policy = Policy({"quick": QUICK}, {}, "quick", None)
    limited = Rates(Policies(Path("/nonexistent"), policy), buckets, clock)
    assert taken(limited, "CN=first", 9) == 3
    for number in range(20_000):
        limited.take(f"CN={number}")
        clock.seconds += 0.001
    assert taken(limited, "CN=19999", 9) == 2
    assert taken(limited, "CN=first", 9) == 3  # full again long ago


def _taken_by_a_worker(path: str, seconds: float) -> int:
    """How many requests a process is let pass within some seconds, asking without pause."""
    policy = Policy({"shared": SHARED}, {}, "shared", None)
    limited = Rates(Policies(Path("/nonexistent"), policy), Buckets(Path(path)))
    ends, passed = monotonic() + seconds, 0
    while monotonic() < ends:
        passed += taken(limited, "CN=busy", 1)
    return passed


def test_workers_of_a_silo_count_together(buckets: Buckets) -> None:
    with shared_buckets() as path, get_context("spawn").Pool(3) as processes:
        began = monotonic()
        passed = processes.starmap(_taken_by_a_worker, [(str(path), 1.0)] * 3, chunksize=1)
        took = monotonic() - began
    assert sum(passed) >= 50  # a burst at least, and no more than that and the rate in the time that it took
    assert sum(passed) <= 50 + 200 * took + 1
