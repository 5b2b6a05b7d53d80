"""Polynomial coefficients through an encoder that takes complex slots.

SEAL's CKKS encoder takes the N/2 values of a real polynomial at the powers 3^j of the primitive 2N-th
root of unity; the other half are their conjugates. A twisted FFT goes from coefficients to those values
and back, which puts chosen integers at chosen coefficients (Cheon et al., ASIACRYPT 2017, section 3.2).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]


@lru_cache(maxsize=8)
def _tables(poly_degree: int) -> tuple[Complex, NDArray[np.int64]]:
    """The twist exp(iπn/N), and for each slot j the index t of its root exp(iπ(2t+1)/N)."""
    twist = np.exp(1j * np.pi * np.arange(poly_degree) / poly_degree)
    powers = np.empty(poly_degree // 2, dtype=np.int64)
    power = 1  # SEAL generates the rotation group by 3
    for slot in range(poly_degree // 2):
        powers[slot] = power
        power = power * 3 % (2 * poly_degree)
    return twist, (powers - 1) // 2


def slots_from_coefficients(coefficients: NDArray[np.int64]) -> Complex:
    """Slots, shape (N/2,), that encode exactly these coefficients, shape (N,)."""
    poly_degree = coefficients.shape[0]
    twist, roots = _tables(poly_degree)
    values: Complex = np.fft.ifft(coefficients * twist, norm="forward")
    return values[roots]


def coefficients_from_slots(slots: Complex) -> NDArray[np.float64]:
    """Coefficients, shape (N,), of the real polynomial with these slots, shape (N/2,)."""
    poly_degree = 2 * slots.shape[0]
    twist, roots = _tables(poly_degree)
    values = np.empty(poly_degree, dtype=np.complex128)
    values[roots] = slots
    values[poly_degree - 1 - roots] = slots.conj()
    coefficients = np.fft.fft(values, norm="forward") * twist.conj()
    return np.ascontiguousarray(coefficients.real)
