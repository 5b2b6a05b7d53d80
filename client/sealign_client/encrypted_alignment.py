"""Encrypted alignment at the client: send rows encrypted, get a verified cross-covariance, solve for the map.

The silo sees ciphertexts, and the client retains the map. Every alignment has a secret key of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from math import floor, log2, sqrt

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, ScaledRows, fit_cross_covariance
from sealign.ckks import Cipher, EncryptedMatrix, PackingPlan, ParameterSet, ProductShape, SecretKey, candidates
from sealign.encoders import EncoderCard
from sealign.errors import (
    InvalidInputError,
    ReleaseRefusedError,
    SealignError,
    UnavailableError,
    UnknownSessionError,
)
from sealign.protocol import AlignmentOffer, AlignmentRequest, CrossCovariancePart
from sealign_client.local.unfinished import BegunAlignment, UnfinishedAlignment
from sealign_client.results import Transfer
from sealign_client.retry import TRANSIENT
from sealign_client.session import Session

_RESTARTS = 3


@dataclass(frozen=True, eq=False)
class AlignmentTask:
    """What an encrypted alignment is to learn.

    Attributes:
        request: names space, encoder and public set.
        target: the silo's encoder.
        rows: the client's rows of the public set, (n, d).
    """

    request: AlignmentRequest
    target: EncoderCard
    rows: NDArray[np.float32]
