"""SEAL's working objects for a parameter set, made once for each process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from sealign.ckks.parameters import ParameterSet, require_secure
from sealign.ckks.slots import coefficients_from_slots, slots_from_coefficients


@dataclass(frozen=True)
class Backend:
    """Context, encoder and evaluator of one parameter set. Safe to share between threads."""

    parameters: ParameterSet
    context: Any
    encoder: Any
    evaluator: Any

    def encode(self, coefficients: NDArray[np.int64]) -> sealapi.Plaintext:
        """The plaintext polynomial with these integer coefficients, shape (N,)."""
        plaintext = sealapi.Plaintext()
        # Scale 1: the plan's scales are already in the integers.
        self.encoder.encode(slots_from_coefficients(coefficients).tolist(), 1.0, plaintext)
        return plaintext

    def decode(self, plaintext: sealapi.Plaintext) -> NDArray[np.float64]:
        """Coefficients of a plaintext polynomial, shape (N,), in (-q/2, q/2)."""
        return coefficients_from_slots(np.array(self.encoder.decode_complex(plaintext), dtype=np.complex128))


@lru_cache(maxsize=32)
def backend(parameters: ParameterSet) -> Backend:
    """The backend of a parameter set.

    Raises:
        InsecureParametersError: the set is under 128 bits of classical security.
    """
    require_secure(parameters)
    encryption = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    encryption.set_poly_modulus_degree(parameters.poly_degree)
    encryption.set_coeff_modulus([sealapi.Modulus(parameters.modulus)])
    # SEAL checks the set against its own 128-bit table once more.
    context = sealapi.SEALContext(encryption, True, sealapi.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise RuntimeError(f"SEAL refuses {parameters.name}: {context.parameters_error_message()}")
    return Backend(parameters, context, sealapi.CKKSEncoder(context), sealapi.Evaluator(context))
