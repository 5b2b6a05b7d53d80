"""Named CKKS parameter sets and the security they give.

A set is a polynomial degree N and one NTT-friendly prime q: the encrypted product needs no
rescaling and no key switching, so there is no modulus chain, no special prime, and a coefficient is
one machine word. Secrets are ternary and errors have standard deviation 3.2, as SEAL samples them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import log2

from sealign.errors import InsecureParametersError
from sealign.security import SecurityTable

MINIMUM_SECURITY = 128

ERROR_STD = 3.24
"""Standard deviation of SEAL's centred binomial error sampler (sqrt(21/2))."""


SECURITY_LEVELS = (128, 192, 256)

LEAST_DIMENSIONS: dict[SecurityTable, dict[int, dict[int, int]]] = {
    SecurityTable.CLASSICAL: {
        128: {32: 1474, 36: 1662, 40: 1851, 42: 1945, 44: 2039, 48: 2228, 54: 2510, 60: 2793},
        192: {32: 2008, 36: 2260, 40: 2511, 42: 2637, 44: 2763, 48: 3015, 54: 3393, 60: 3771},
        256: {32: 2520, 36: 2832, 40: 3143, 42: 3299, 44: 3455, 48: 3767, 54: 4235, 60: 4703},
    },
    SecurityTable.POST_QUANTUM: {
        128: {32: 1584, 36: 1786, 40: 1987, 42: 2088, 44: 2189, 48: 2391, 54: 2693, 60: 2995},
        192: {32: 2168, 36: 2438, 40: 2709, 42: 2844, 44: 2979, 48: 3250, 54: 3656, 60: 4062},
        256: {32: 2723, 36: 3058, 40: 3394, 42: 3561, 44: 3729, 48: 4065, 54: 4568, 60: 5071},
    },
}
"""Table, bits of security and width of q: the least dimension of a ternary secret.

Source of every entry: `python -m tests.benchmarks.security_levels`, which computes it (core-SVP of the primal attack,
calibrated on the public lattice estimator) and checks this copy. It is stricter than SEAL's own table, the
HomomorphicEncryption.org standard of 2018, which counts the cost of lattice reduction more generously.
"""


@dataclass(frozen=True)
class ParameterSet:
    """A polynomial degree and a prime modulus, known by name to both sides."""

    name: str
    poly_degree: int
    modulus: int

    @property
    def modulus_bits(self) -> int:
        """Width of a coefficient in bits."""
        return self.modulus.bit_length()

    def security_level(self, table: SecurityTable = SecurityTable.CLASSICAL) -> int:
        """Security in bits by ``table``: 128, 192, 256, or 0 where it is under 128 or not covered."""
        return max(
            (
                level
                for level in SECURITY_LEVELS
                if _least_dimension(self.modulus_bits, table, level) <= self.poly_degree
            ),
            default=0,
        )

    def spare_coefficients(self, table: SecurityTable = SecurityTable.CLASSICAL) -> int:
        """How many coefficients of a secret may be known with the rest still at 128 bits.

        A known coefficient takes one dimension from the lattice (Dachman-Soled et al., CRYPTO 2020, section 4.1).
        """
        return max(0, self.poly_degree - _least_dimension(self.modulus_bits, table, MINIMUM_SECURITY))

    def spare_bits(self, table: SecurityTable = SecurityTable.CLASSICAL) -> float:
        """How many bits about a ternary secret may be known with the rest still at 128 bits."""
        return self.spare_coefficients(table) * log2(3)


@cache
def _least_dimension(modulus_bits: int, table: SecurityTable, level: int) -> int:
    wide_enough = [least for bits, least in LEAST_DIMENSIONS[table][level].items() if bits >= modulus_bits]
    return min(wide_enough, default=1 << 30)


# Each modulus is the largest prime of its width that is 1 mod 2N (SEAL's CoeffModulus::Create).
PARAMETER_SETS: dict[str, ParameterSet] = {
    parameters.name: parameters
    for parameters in (
        ParameterSet("ckks-2048-32", 2048, 4_294_955_009),
        ParameterSet("ckks-2048-36", 2048, 68_719_464_449),
        ParameterSet("ckks-2048-40", 2048, 1_099_511_590_913),
        ParameterSet("ckks-2048-42", 2048, 4_398_046_486_529),
        ParameterSet("ckks-4096-36", 4096, 68_719_403_009),
        ParameterSet("ckks-4096-40", 4096, 1_099_511_480_321),
        ParameterSet("ckks-4096-44", 4096, 17_592_186_028_033),
        ParameterSet("ckks-4096-48", 4096, 281_474_976_694_273),
        ParameterSet("ckks-4096-54", 4096, 18_014_398_509_309_953),
        ParameterSet("ckks-4096-60", 4096, 1_152_921_504_606_830_593),
        ParameterSet("ckks-8192-40", 8192, 1_099_511_480_321),
        ParameterSet("ckks-8192-48", 8192, 281_474_976_694_273),
        ParameterSet("ckks-8192-54", 8192, 18_014_398_508_400_641),
        ParameterSet("ckks-8192-60", 8192, 1_152_921_504_606_830_593),
    )
}


def parameter_set(
    name: str, table: SecurityTable = SecurityTable.CLASSICAL, minimum: int = MINIMUM_SECURITY
) -> ParameterSet:
    """The parameter set called ``name``, if it is secure enough.

    Raises:
        InsecureParametersError: the name is not known here, or the set is below ``minimum`` bits.
    """
    found = PARAMETER_SETS.get(name)
    if found is None:
        raise InsecureParametersError(
            f"parameter set {name[:64]!r} is not known here; known sets are {', '.join(PARAMETER_SETS)}. "
            "Both sides must run versions of Sealign that share a set."
        )
    require_secure(found, table, minimum)
    return found


def require_secure(
    parameters: ParameterSet,
    table: SecurityTable = SecurityTable.CLASSICAL,
    minimum: int = MINIMUM_SECURITY,
) -> None:
    """Refuse a parameter set that does not reach ``minimum`` bits of security.

    Raises:
        InsecureParametersError: names the set, its level and the level demanded.
    """
    level = parameters.security_level(table)
    if level < minimum:
        raise InsecureParametersError(
            f"parameter set {parameters.name!r} (N={parameters.poly_degree}, {parameters.modulus_bits}-bit "
            f"modulus) gives {level or 'under 128'} bits by the {table.value} table; at least {minimum} are "
            "demanded. Choose a set with a larger degree or a smaller modulus."
        )
