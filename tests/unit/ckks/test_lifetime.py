"""The lifetime of a key: how many replies it may answer, counted from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import log2

import pytest

from sealign.ckks import (
    PARAMETER_SETS,
    LeakageMeter,
    SecretKey,
    SecurityTable,
    parameter_set,
    replies_per_key,
    reply_bits_told,
)
from sealign.errors import InvalidInputError
from tests.benchmarks.security_levels import security_bits

PARAMETERS = parameter_set("ckks-2048-40")


@pytest.mark.parametrize("name", PARAMETER_SETS)
@pytest.mark.parametrize("table", SecurityTable)
@pytest.mark.parametrize("labels", [2, 4, 150, 50_000])
def test_what_is_left_after_a_lifetime_gives_128_bits(name: str, table: SecurityTable, labels: int) -> None:
    parameters = PARAMETER_SETS[name]
    replies = replies_per_key(parameters, labels, table=table)
    if not replies:
        return
    told = replies * log2(labels) + log2(replies + 1)  # every label, and which reply failed, if any
    left = int(parameters.poly_degree - told / log2(3))
    assert security_bits(left, parameters.modulus_bits, table) >= 128
    more = (replies + 1) * log2(labels) + log2(replies + 2)
    assert more > parameters.spare_bits(table)


@pytest.mark.parametrize("labels", [2, 4, 150])
def test_the_meter_counts_as_the_formula_does(labels: int) -> None:
    meter, count = LeakageMeter.of(PARAMETERS), 0
    while meter.spend(rows=1, labels=labels):
        count += 1
    assert count == meter.replies == replies_per_key(PARAMETERS, labels)
    assert meter.exhausted


def test_a_verified_batch_tells_of_the_bias_only() -> None:
    assert reply_bits_told(1024, 4) == 2048
    assert reply_bits_told(1024, 4, verified=True) == pytest.approx(4 * log2(1025))
    assert reply_bits_told(1, 4, verified=True) == 2  # never more than without
    meter = LeakageMeter.of(PARAMETERS)
    with pytest.raises(InvalidInputError, match="verify"):
        meter.spend(rows=1024, labels=4)
    assert not meter.exhausted
    assert meter.spend(rows=1024, labels=4, verified=True)


def test_threads_do_not_overspend() -> None:
    meter = LeakageMeter.of(PARAMETERS)
    with ThreadPoolExecutor(8) as threads:
        answered = sum(threads.map(lambda _: meter.spend(rows=1, labels=4), range(2000)))
    assert answered == replies_per_key(PARAMETERS, 4)


def test_a_failure_exhausts_a_key() -> None:
    key = SecretKey.generate(PARAMETERS)
    assert key.spend(rows=1, labels=4)
    assert not key.exhausted
    key.leakage.fail()
    assert key.exhausted
    assert not key.spend(rows=1, labels=4)


def test_the_stricter_table_gives_shorter_lives() -> None:
    classical, quantum = (SecretKey.generate(PARAMETERS, table).leakage.budget for table in SecurityTable)
    assert quantum < classical


@pytest.mark.parametrize(("rows", "labels"), [(0, 2), (1, 0)])
def test_meaningless_replies_are_refused(rows: int, labels: int) -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        LeakageMeter.of(PARAMETERS).spend(rows=rows, labels=labels)
