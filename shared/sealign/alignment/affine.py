"""The affine map from a client's embedding space to the silo's, and how good it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.alignment.channel import MappedChannel
from sealign.alignment.map_covariances import MapCovariances
from sealign.errors import InvalidInputError
from sealign.files import load_arrays, save_arrays

_FORMAT = "sealign.affine-map/1"
_TEXTS = ("source_fingerprint", "target_fingerprint", "public_set", "created")
_COVARIANCES = ("cross", "mapped")
_UNKNOWN = ("mean_cosine", "linear_cka", "divergence")
"""Measures that not every map has."""


@dataclass(frozen=True)
class MapQuality:
    """How well a map predicts rows that were held out from its fit.

    Attributes:
        explained_variance: 1 − residual/total squared error over all held-out folds, where total is
            the error of predicting the training mean; 1 is perfect, 0 no better than the mean.
            Of a map learned under encryption, where no rows can be held out: its estimate by
            generalised cross-validation.
        mean_cosine: mean cosine between predicted and target embeddings, over a sample of at most
            512 rows of fold 0 and a fit without fold 0; None if learned under encryption.
        linear_cka: linear centred kernel alignment of the two embeddings over all rows; None if
            learned under encryption.
        rows: number of embedding pairs.
        penalty: the chosen ridge penalty, as a multiple of the mean eigenvalue of XᵀX.
        family: of maps that it was chosen from, a name in `FAMILIES`. Of others than ridge, the explained variance is
            of fold 0 alone. Or ``refined``: explained variance and mean cosine are those of the map before, plus what
            the refinement changed on rows that it did not learn from; the penalty is that map's.
        divergence: of a refined map: mean divergence from the silo's own predictions over those rows, nats a token.
    """

    explained_variance: float
    mean_cosine: float | None
    linear_cka: float | None
    rows: int
    penalty: float
    family: str = "ridge"
    divergence: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "family" or (value is None and field.name in _UNKNOWN):
                continue
            whole = field.name == "rows"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise InvalidInputError(f"map quality: {field.name} is not a number")
            if not np.isfinite(value):
                raise InvalidInputError(f"map quality: {field.name} is not finite")


@dataclass(frozen=True, eq=False)
class AffineMap:
    """y = xW + b from the source (client's) to the target (silo's) embedding space.

    Source: Gorbett and Jana, arXiv 2603.18908 (the affine alignment over a public set).

    Attributes:
        weight: (dim_source, dim_target), float64, read-only.
        intercept: (dim_target,), float64, read-only.
        source_fingerprint: of the encoder whose embeddings it takes.
        target_fingerprint: of the encoder whose embeddings it predicts.
        public_set: digest of the texts it was learned over.
        quality: measured on held-out rows.
        created: ISO 8601 time, UTC.
        channel: from the target encoder's own embeddings to mapped ones; None for maps of earlier versions, and for
            those learned under encryption.
        covariances: what a client may tell the silo about a map learned under encryption; None for others.

    Raises:
        InvalidInputError: shapes that do not fit together, or numbers that are not finite.
    """

    weight: NDArray[np.float64]
    intercept: NDArray[np.float64]
    source_fingerprint: str
    target_fingerprint: str
    public_set: str
    quality: MapQuality
    created: str
    channel: MappedChannel | None = None
    covariances: MapCovariances | None = None

    def __post_init__(self) -> None:
        weight = np.array(self.weight, dtype=np.float64)
        intercept = np.array(self.intercept, dtype=np.float64)
        if weight.ndim != 2 or not weight.size or intercept.shape != weight.shape[1:]:
            raise InvalidInputError(
                f"an affine map needs a weight (source, target) and an intercept (target,), "
                f"not {weight.shape} and {intercept.shape}"
            )
        if not (np.isfinite(weight).all() and np.isfinite(intercept).all()):
            raise InvalidInputError("the affine map holds numbers that are not finite; align again")
        if self.channel is not None and self.channel.dimension != len(intercept):
            raise InvalidInputError(f"a channel of {self.channel.dimension} dimensions does not fit {len(intercept)}")
        if self.covariances is not None and self.covariances.dimension != len(intercept):
            raise InvalidInputError(
                f"covariances of {self.covariances.dimension} dimensions do not fit {len(intercept)}"
            )
        weight.flags.writeable = intercept.flags.writeable = False
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "intercept", intercept)

    @cached_property
    def id(self) -> str:
        """The name of the content, 32 hexadecimal digits: of weight, intercept, both encoders and the public set."""
        named = "\0".join((self.source_fingerprint, self.target_fingerprint, self.public_set))
        state = sha256(b"sealign affine map v1\0" + named.encode() + b"\0")
        state.update(self.weight.astype("<f8").tobytes())
        state.update(self.intercept.astype("<f8").tobytes())
        return state.hexdigest()[:32]

    def apply(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predicted target embeddings (n, dim_target) of source embeddings (n, dim_source).

        Raises:
            InvalidInputError: wrong shape.
        """
        x = np.asarray(X, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.weight.shape[0]:
            raise InvalidInputError(f"embeddings have shape {x.shape}; the map takes (rows, {self.weight.shape[0]})")
        predicted: NDArray[np.float64] = x @ self.weight + self.intercept
        return predicted

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically, for its owner's eyes only.

        Raises:
            StorageError: the file could not be written; the previous one is intact.
        """
        metadata = {name: getattr(self, name) for name in _TEXTS}
        arrays = {"weight": self.weight, "intercept": self.intercept}
        save_arrays(
            Path(path),
            {
                **arrays,
                **_prefixed("channel", self.channel, MappedChannel.ARRAYS),
                **_prefixed("covariances", self.covariances, _COVARIANCES),
            },
            {"format": _FORMAT, "quality": json.dumps(asdict(self.quality)), **metadata},
            mode=0o600,
        )

    @classmethod
    def load(cls, path: str | Path) -> AffineMap:
        """Read what :meth:`save` wrote.

        Raises:
            StorageError: missing, damaged, or not a safetensors file.
            InvalidInputError: a safetensors file that is not a map, or not a whole one.
        """
        arrays, metadata = load_arrays(Path(path))
        if metadata.get("format") != _FORMAT:
            raise InvalidInputError(f"{path} is not an affine map; align again to make one")
        try:
            if any(arrays[name].dtype != np.float64 for name in ("weight", "intercept")):
                raise InvalidInputError("arrays are not float64")
            has_channel = any(name.startswith("channel.") for name in arrays)
            return cls(
                weight=arrays["weight"],
                intercept=arrays["intercept"],
                quality=MapQuality(**json.loads(metadata["quality"])),
                channel=MappedChannel.of_arrays(arrays, "channel.") if has_channel else None,
                covariances=MapCovariances(*(arrays[f"covariances.{name}"] for name in _COVARIANCES))
                if "covariances.cross" in arrays
                else None,
                **{name: metadata[name] for name in _TEXTS},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"{path} is damaged ({error}); align again") from error


def _prefixed(prefix: str, part: object | None, names: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    return {} if part is None else {f"{prefix}.{name}": getattr(part, name) for name in names}
