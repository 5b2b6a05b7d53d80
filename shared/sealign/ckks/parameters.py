"""Named CKKS parameter sets and the security they give.

A set is a polynomial degree N and one NTT-friendly prime q: the encrypted product needs no
rescaling and no key switching, so there is no modulus chain, no special prime, and a coefficient is
one machine word. Secrets are ternary and errors have standard deviation 3.2, as SEAL samples them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sealign.errors import InsecureParametersError

MINIMUM_SECURITY = 128

ERROR_STD = 3.24
"""Standard deviation of SEAL's centred binomial error sampler (sqrt(21/2))."""


class SecurityTable(str, enum.Enum):
    """Which table of largest moduli a parameter set must satisfy."""

    CLASSICAL = "classical"
    """SEAL's table (HomomorphicEncryption.org standard 2018, ternary secret, classical attacks)."""
    POST_QUANTUM = "post_quantum"
    """Stricter: 128 bits against quantum attacks."""


_LARGEST_MODULUS_BITS: dict[SecurityTable, dict[int, dict[int, int]]] = {
    SecurityTable.CLASSICAL: {
        2048: {128: 54, 192: 37, 256: 29},
        4096: {128: 109, 192: 75, 256: 58},
        8192: {128: 218, 192: 152, 256: 118},
    },
    SecurityTable.POST_QUANTUM: {2048: {128: 41}, 4096: {128: 83}, 8192: {128: 165}},
}


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
        """Security in bits by ``table``: 0 if the table does not cover the set."""
        levels = _LARGEST_MODULUS_BITS[table].get(self.poly_degree, {})
        return max((bits for bits, largest in levels.items() if self.modulus_bits <= largest), default=0)

    def spare_coefficients(self, table: SecurityTable = SecurityTable.CLASSICAL) -> int:
        """How many coefficients of a secret may be known with the rest still at 128 bits.

        The largest modulus grows in proportion to the degree; the least slope of the table counts.
        """
        slope = min(levels[128] / degree for degree, levels in _LARGEST_MODULUS_BITS[table].items())
        return max(0, int(self.poly_degree - self.modulus_bits / slope))


# Each modulus is the largest prime of its width that is 1 mod 2N (SEAL's CoeffModulus::Create).
PARAMETER_SETS: dict[str, ParameterSet] = {
    parameters.name: parameters
    for parameters in (
        ParameterSet("ckks-2048-32", 2048, 4_294_955_009),
        ParameterSet("ckks-2048-36", 2048, 68_719_464_449),
        ParameterSet("ckks-2048-40", 2048, 1_099_511_590_913),
        ParameterSet("ckks-2048-44", 2048, 17_592_186_028_033),
        ParameterSet("ckks-2048-48", 2048, 281_474_976_694_273),
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
