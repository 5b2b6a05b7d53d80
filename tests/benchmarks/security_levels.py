"""Bits of security of every parameter set, and the table of least dimensions that `ckks/parameters.py` holds.

    python -m tests.benchmarks.security_levels

The estimate is core-SVP (Alkim, Ducas, Pöppelmann and Schwabe, USENIX Security 2016, section 6) of the primal attack:
BKZ with blocks of β solves LWE when √β·σ ≤ δ^(2β-d-1)·vol^(1/d), over the best number of samples, and costs 2^(0.292·β)
classically and 2^(0.265·β) with a quantum computer. The ternary secret is scaled to the error's size (Bai and
Galbraith, ACISP 2014). Two parts in a hundred are taken off β for dual and hybrid attacks, which the public
lattice estimator (github.com/malb/lattice-estimator) finds a little cheaper. Against its figures the result is then
0 to 1.5 bits lower.
"""

from __future__ import annotations

from functools import lru_cache
from math import e, log2, pi, sqrt

import numpy as np

from sealign.ckks import PARAMETER_SETS, SecurityTable
from sealign.ckks.parameters import LEAST_DIMENSIONS, SECURITY_LEVELS

BITS_PER_BLOCK = {SecurityTable.CLASSICAL: 0.292, SecurityTable.POST_QUANTUM: 0.265}
"""Exponents of sieving: Becker et al. (SODA 2016), and Laarhoven (2015) with Grover's search."""

ESTIMATOR = {  # (N, log2 q): classical and quantum core-SVP by the public estimator, σ = 3.2, ternary secret
    (2048, 40): (147, 134),
    (2048, 44): (130, 118),
    (2048, 48): (115, 105),
}
_ERROR_STD = 3.2  # a little under SEAL's 3.24
_SECRET_STD = sqrt(2 / 3)
_OTHER_ATTACKS = 0.98


def _log2_delta(block: int) -> float:
    """log2 of the root Hermite factor of BKZ (Chen, 2013)."""
    return log2((pi * block) ** (1 / block) * block / (2 * pi * e)) / (2 * (block - 1))


def _solves(block: int, dimension: int, modulus_bits: float) -> bool:
    samples = np.arange(1, 4 * dimension, 8)
    d = samples + dimension + 1
    volume = (samples * modulus_bits + dimension * log2(_ERROR_STD / _SECRET_STD)) / d
    return bool(((2 * block - d - 1) * _log2_delta(block) + volume >= log2(sqrt(block) * _ERROR_STD)).any())


@lru_cache(maxsize=4096)
def block_size(dimension: int, modulus_bits: float) -> float:
    """β of the cheapest attack on a ternary secret of this dimension."""
    low, high = 50, 8192
    while low < high:
        middle = (low + high) // 2
        if _solves(middle, dimension, modulus_bits):
            high = middle
        else:
            low = middle + 1
    return _OTHER_ATTACKS * low


def security_bits(dimension: int, modulus_bits: float, table: SecurityTable) -> float:
    """Core-SVP bits of LWE with a ternary secret of this dimension."""
    return BITS_PER_BLOCK[table] * block_size(dimension, modulus_bits)


def least_dimension(modulus_bits: int, level: int, table: SecurityTable) -> int:
    """The least dimension in which a modulus of this width gives ``level`` bits."""
    low, high = 128, 1 << 14
    while low < high:
        middle = (low + high) // 2
        if security_bits(middle, modulus_bits, table) >= level:
            high = middle
        else:
            low = middle + 1
    return low


def largest_width(poly_degree: int, level: int, table: SecurityTable) -> int:
    """log2 of the largest modulus that a degree carries at ``level`` bits."""
    return max(width for width in range(10, 300) if security_bits(poly_degree, width, table) >= level)


def recomputed() -> dict[SecurityTable, dict[int, dict[int, int]]]:
    """The table of least dimensions, computed anew."""
    widths = sorted({parameters.modulus_bits for parameters in PARAMETER_SETS.values()})
    return {
        table: {level: {bits: least_dimension(bits, level, table) for bits in widths} for level in SECURITY_LEVELS}
        for table in SecurityTable
    }


def main() -> None:
    """Print every figure; fail if the table in the library is another."""
    for (degree, bits), (classical, quantum) in ESTIMATOR.items():
        ours = ", ".join(f"{security_bits(degree, bits, table):.1f}" for table in SecurityTable)
        print(f"N={degree} log2 q={bits}: {ours} bits; the public estimator: {classical}, {quantum}")
    for name, parameters in PARAMETER_SETS.items():
        figures = ", ".join(
            f"{table.value} {security_bits(parameters.poly_degree, parameters.modulus_bits, table):.0f} bits "
            f"(table {parameters.security_level(table)}, spare {parameters.spare_coefficients(table)})"
            for table in SecurityTable
        )
        print(f"{name}: {figures}")
    for table in SecurityTable:
        widths = {degree: largest_width(degree, 128, table) for degree in (2048, 4096, 8192)}
        print(f"largest log2 q at 128 bits, {table.value}: {widths}")
    table_now = recomputed()
    for table, levels in table_now.items():
        print(table, levels)
    if table_now != LEAST_DIMENSIONS:
        raise SystemExit("sealign.ckks.parameters.LEAST_DIMENSIONS differs: copy the figures above into it")


if __name__ == "__main__":
    main()
