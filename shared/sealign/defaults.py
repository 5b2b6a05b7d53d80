"""What a silo does unless its operator says otherwise; the silo's settings and the evaluation start from the same."""

from __future__ import annotations

BATCH_ROWS = (1, 32, 1024)
"""Rows of the batches that plans are made for."""

BATCH_BYTES = 64 << 20
"""Maximum bytes of encoded weights for one batch size."""

OOD_DIRECTIONS = 8
"""Outputs for the Mahalanobis score of a fitted head."""

HELD_OUT = 0.2
"""Share of each class's rows that calibrate a head and fit none."""

FEWEST_OUTLIERS = 20
"""Texts of another kind that a class of outliers is learned from, at least."""

OUTLIERS = 4000
"""Maximum number of such texts."""

ALIGNMENT_PRECISION = 2.0**-15
"""Largest error of an entry of an encrypted cross-covariance, in units of the silo's mean dimension norm.

With real encoders this moves the ridge map by some 3e-4 of its norm.
"""

RECENTRED_NORM = 2.0
"""Longest row of unit-norm embeddings whose mean the client has taken away."""

MAX_EXAMPLES = 128
"""Texts of a task that a silo may offer for alignment: clients accept no more."""
