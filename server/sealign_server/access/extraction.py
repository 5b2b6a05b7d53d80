"""What rows reveal of a head, as the extraction attack measures it (tests/benchmarks/extraction.py)."""

from __future__ import annotations

from math import sqrt


def extracted_cosine(rows: int, dimension: int) -> float:
    """Return the cosine of the weights that an extractor can have with the true ones, from 0 to 1.

    k rows of its choice give k functionals of each output's d + 1 numbers, exactly, as coarse as they are served. The
    part of the weights that k of d + 1 directions hold has the cosine √(k/(d + 1)), whatever the head, if it does not
    know in which directions the weights are large.

    Args:
        rows: that it has had computed, over all encoders.
        dimension: of the rows that the head takes.
    """
    return sqrt(min(1.0, rows / (dimension + 1)))
