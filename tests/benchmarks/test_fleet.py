"""The simulated fleet agrees with what is known of queues, and with the rules that it follows."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.fleet import LEASE, SENDS, Costs, Fleet, Load

COSTS = Costs(query=np.array([0.004]), key=0.002, refusal=0.001, lease=0.0001, at_once=1)


@pytest.mark.parametrize("busy", [0.3, 0.6])
def test_one_pod_is_the_queue_of_the_textbook(busy: float) -> None:
    """M/D/1: the mean time is s + ρs / 2(1 − ρ)."""
    outcome = Fleet(COSTS, Load(pods=1, clients=50, rate=busy / 0.004, seconds=200.0)).run()
    mean = 4.0 + 4.0 * busy / (2 * (1 - busy))
    assert np.mean(outcome.milliseconds) == pytest.approx(mean, rel=0.1)
    assert not outcome.unknown + outcome.refused


def test_every_pod_takes_the_key_and_a_lease_of_every_client_once() -> None:
    load = Load(pods=5, clients=40, rate=600.0, seconds=20.0, warm=False)
    outcome = Fleet(COSTS, load).run()
    answered = len(outcome.milliseconds)
    assert outcome.attempts == answered + outcome.unknown
    assert outcome.leases >= 5 * 40
    assert outcome.leases <= 5 * 40 + answered / LEASE
    assert outcome.unknown + 40 <= outcome.keyed <= 40 + SENDS * outcome.unknown
    few = Fleet(COSTS, Load(pods=5, clients=40, rate=600.0, seconds=20.0, warm=False, affine=1)).run()
    assert not few.unknown
    assert few.keyed == 40


def test_replaced_pods_learn_again_and_no_query_is_lost() -> None:
    load = Load(pods=4, clients=20, rate=400.0, seconds=10.0, restart=1.0)
    calm, outcome = Fleet(COSTS, Load(pods=4, clients=20, rate=400.0, seconds=10.0)).run(), Fleet(COSTS, load).run()
    assert len(outcome.milliseconds) == len(calm.milliseconds)
    assert outcome.unknown > calm.unknown == 0
    assert outcome.leases >= calm.leases + 4 * 20 - 20


def test_a_limit_keeps_a_flood_from_others() -> None:
    flood = Load(pods=4, clients=20, rate=400.0, seconds=10.0, flood=2000.0)
    limited = Load(pods=4, clients=20, rate=400.0, seconds=10.0, flood=2000.0, limit=20.0)
    slow, quick = (np.percentile(Fleet(COSTS, load).run().milliseconds, 99) for load in (flood, limited))
    assert slow > 10 * quick


def test_new_pods_wait_for_the_ledger_less_where_it_does_more_at_once() -> None:
    load = Load(pods=5, clients=200, rate=600.0, seconds=5.0, warm=False)
    slow, quick = (
        Fleet(Costs(COSTS.query, COSTS.key, COSTS.refusal, lease=0.02, at_once=count), load).run().ledger_wait
        for count in (1, 8)
    )
    assert quick < slow / 6
