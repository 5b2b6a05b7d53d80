"""Named parameter sets against the estimate of their security, SEAL's own table and its prime search."""

from __future__ import annotations

import pytest
from tenseal import sealapi

from sealign.ckks import PARAMETER_SETS, ParameterSet, SecurityTable, parameter_set, require_secure
from sealign.ckks.backend import backend
from sealign.ckks.parameters import LEAST_DIMENSIONS
from sealign.errors import InsecureParametersError
from tests.benchmarks import security_levels

ALL = pytest.mark.parametrize("parameters", PARAMETER_SETS.values(), ids=PARAMETER_SETS)
# A 60-bit prime, 1 mod 4096: 16 bits above what 2048 coefficients carry at 128 bits.
INSECURE = ParameterSet("ckks-2048-60", 2048, 1_152_921_504_606_830_593)


def _of_width(poly_degree: int, bits: int) -> ParameterSet:
    return ParameterSet("probe", poly_degree, (1 << bits) - 1)


def _is_prime(number: int) -> bool:
    """Miller-Rabin, deterministic below 2^64 with these bases (Sinclair, 2011)."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 325, 9375, 28178, 450775, 9780504, 1795265022):
        x = pow(base, odd, number)
        if x in (0, 1, number - 1):
            continue
        if not any((x := x * x % number) == number - 1 for _ in range(twos - 1)):
            return False
    return True


@ALL
def test_modulus_is_the_ntt_prime_that_its_name_states(parameters: ParameterSet) -> None:
    _, degree, bits = parameters.name.split("-")
    assert (parameters.poly_degree, parameters.modulus_bits) == (int(degree), int(bits))
    assert parameters.modulus % (2 * parameters.poly_degree) == 1
    assert _is_prime(parameters.modulus)


@ALL
def test_modulus_is_the_one_that_seal_creates(parameters: ParameterSet) -> None:
    (created,) = sealapi.CoeffModulus.Create(parameters.poly_degree, [parameters.modulus_bits])
    assert created.value() == parameters.modulus


@ALL
def test_backend_takes_every_named_set(parameters: ParameterSet) -> None:
    assert backend(parameters).context.parameters_set()


def test_table_is_what_the_estimate_gives() -> None:
    assert security_levels.recomputed() == LEAST_DIMENSIONS


@pytest.mark.parametrize("case", security_levels.ESTIMATOR)
@pytest.mark.parametrize(("index", "table"), list(enumerate(SecurityTable)))
def test_estimate_agrees_with_the_public_estimator(case: tuple[int, int], index: int, table: SecurityTable) -> None:
    """Its figures for ternary secrets and σ = 3.2: ours are at most 2 bits away, and never above."""
    ours = security_levels.security_bits(*case, table)
    theirs = security_levels.ESTIMATOR[case][index]
    assert theirs - 2 <= ours <= theirs


@ALL
def test_every_set_is_secure_by_the_default_table_and_by_seals(parameters: ParameterSet) -> None:
    assert parameters.security_level() >= 128
    assert (
        security_levels.security_bits(parameters.poly_degree, parameters.modulus_bits, SecurityTable.CLASSICAL) >= 128
    )
    largest = sealapi.CoeffModulus.MaxBitCount(parameters.poly_degree, sealapi.SEC_LEVEL_TYPE.TC128)
    assert parameters.modulus_bits <= largest


@pytest.mark.parametrize(
    ("table", "poly_degree", "largest"),
    [
        (SecurityTable.CLASSICAL, 2048, 44),
        (SecurityTable.CLASSICAL, 4096, 60),
        (SecurityTable.POST_QUANTUM, 2048, 40),
        (SecurityTable.POST_QUANTUM, 4096, 60),
    ],
)
def test_widest_modulus_of_each_table(table: SecurityTable, poly_degree: int, largest: int) -> None:
    """A width between two of the table counts as the wider one; beyond the widest nothing counts."""
    assert _of_width(poly_degree, largest).security_level(table) >= 128
    assert _of_width(poly_degree, largest + 1).security_level(table) == 0


@ALL
@pytest.mark.parametrize("table", SecurityTable)
def test_spare_coefficients_leave_128_bits(parameters: ParameterSet, table: SecurityTable) -> None:
    spare = parameters.spare_coefficients(table)
    left = parameters.poly_degree - spare

    def bits(dimension: int) -> float:
        return security_levels.security_bits(dimension, parameters.modulus_bits, table)

    assert spare == 0 or bits(left) >= 128 > bits(left - 1)
    assert parameters.spare_bits(table) == pytest.approx(spare * 1.585, rel=1e-3)


@pytest.mark.parametrize("refuse", [require_secure, backend])
def test_under_128_bits_is_refused_by_name(refuse: object) -> None:
    assert callable(refuse)
    with pytest.raises(InsecureParametersError, match=r"ckks-2048-60.*under 128.*at least 128"):
        refuse(INSECURE)


def test_unknown_degree_is_refused() -> None:
    with pytest.raises(InsecureParametersError, match="ckks-1024-27"):
        require_secure(ParameterSet("ckks-1024-27", 1024, 132_120_577))


def test_unknown_name_is_refused_by_name() -> None:
    with pytest.raises(InsecureParametersError, match=r"'ckks-512-99'.*ckks-2048-32"):
        parameter_set("ckks-512-99")


def test_lookup_honours_table_and_minimum() -> None:
    assert parameter_set("ckks-2048-42").poly_degree == 2048
    with pytest.raises(InsecureParametersError, match="post_quantum"):
        parameter_set("ckks-2048-42", SecurityTable.POST_QUANTUM)
    with pytest.raises(InsecureParametersError, match="gives 128 bits"):
        parameter_set("ckks-2048-42", minimum=192)
    assert parameter_set("ckks-4096-48", minimum=256).security_level() == 256
