"""Affine maps between two encoders' embedding spaces, learned over public texts.

Source: Gorbett and Jana, "Secure Linear Alignment of Large Language Models", arXiv 2603.18908
(an affine transformation learned over a public set shared by client and silo).
"""

from sealign.alignment.affine import AffineMap, MapQuality
from sealign.alignment.channel import MappedChannel
from sealign.alignment.cross_covariance import (
    TEXTS_PER_DIMENSION,
    ScaledRows,
    fit_cross_covariance,
    mapped_row_norm,
    require_enough_texts,
)
from sealign.alignment.families import FAMILIES, fit_map
from sealign.alignment.map_covariances import MapCovariances
from sealign.alignment.public_set import PublicSet, public_sets
from sealign.alignment.regression import DEFAULT_PENALTIES
from sealign.alignment.ridge import fit_ridge
from sealign.alignment.statistics import Moments, RidgeStatistics
from sealign.alignment.weighting import public_names, shared_names, similarity_weights, weigh_shared

__all__ = [
    "DEFAULT_PENALTIES",
    "FAMILIES",
    "TEXTS_PER_DIMENSION",
    "AffineMap",
    "MapCovariances",
    "MapQuality",
    "MappedChannel",
    "Moments",
    "PublicSet",
    "RidgeStatistics",
    "ScaledRows",
    "fit_cross_covariance",
    "fit_map",
    "fit_ridge",
    "mapped_row_norm",
    "public_names",
    "public_sets",
    "require_enough_texts",
    "shared_names",
    "similarity_weights",
    "weigh_shared",
]
