"""Named parameter sets against SEAL's own tables and prime search."""

from __future__ import annotations

import pytest
from tenseal import sealapi

from sealign.ckks import PARAMETER_SETS, ParameterSet, SecurityTable, parameter_set, require_secure
from sealign.ckks.backend import backend
from sealign.errors import InsecureParametersError

ALL = pytest.mark.parametrize("parameters", PARAMETER_SETS.values(), ids=PARAMETER_SETS)
LEVELS = {
    128: sealapi.SEC_LEVEL_TYPE.TC128,
    192: sealapi.SEC_LEVEL_TYPE.TC192,
    256: sealapi.SEC_LEVEL_TYPE.TC256,
}
# A 60-bit prime, 1 mod 4096: six bits above what 2048 coefficients carry at 128 bits.
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


@pytest.mark.parametrize("poly_degree", [2048, 4096, 8192])
@pytest.mark.parametrize("level", LEVELS)
def test_classical_table_is_seals(poly_degree: int, level: int) -> None:
    largest = sealapi.CoeffModulus.MaxBitCount(poly_degree, LEVELS[level])
    assert _of_width(poly_degree, largest).security_level() >= level
    assert _of_width(poly_degree, largest + 1).security_level() < level


@pytest.mark.parametrize(("poly_degree", "largest"), [(2048, 41), (4096, 83), (8192, 165)])
def test_post_quantum_table_is_stricter(poly_degree: int, largest: int) -> None:
    table = SecurityTable.POST_QUANTUM
    assert _of_width(poly_degree, largest).security_level(table) == 128
    assert _of_width(poly_degree, largest + 1).security_level(table) == 0
    assert _of_width(poly_degree, largest + 1).security_level() >= 128


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
    assert parameter_set("ckks-2048-48").poly_degree == 2048
    with pytest.raises(InsecureParametersError, match="post_quantum"):
        parameter_set("ckks-2048-48", SecurityTable.POST_QUANTUM)
    with pytest.raises(InsecureParametersError, match="gives 128 bits"):
        parameter_set("ckks-2048-48", minimum=192)
    assert parameter_set("ckks-4096-54", minimum=256).security_level() == 256
