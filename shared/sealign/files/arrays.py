"""Arrays in safetensors files, with a digest that finds accidents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from sealign.errors import StorageError
from sealign.files.atomic import PRIVATE, write_atomically

Array = np.ndarray[Any, np.dtype[Any]]

_DIGEST = "sealign.sha256"


def save_arrays(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str], *, mode: int = PRIVATE) -> None:
    """Store named arrays and string metadata as one safetensors file, atomically, with a digest of both.

    Raises:
        StorageError: the file could not be written; the old file stays.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    sealed = {**metadata, _DIGEST: _digest(contiguous, metadata)}
    write_atomically(path, safetensors.numpy.save(contiguous, metadata=sealed), mode=mode)


def load_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Read what :func:`save_arrays` wrote, or another program's safetensors file, which has no digest.

    Raises:
        StorageError: the file is missing or damaged, is not a safetensors file, or holds numbers that
            numpy does not know.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except TypeError as error:  # numpy has no bfloat16
        raise StorageError(f"numpy cannot read {path} ({error}). Store its arrays as float32.") from error
    except (OSError, SafetensorError) as error:
        raise StorageError(f"could not read {path} as safetensors: {error}.") from error
    digest = metadata.pop(_DIGEST, None)
    if digest is not None and digest != _digest(arrays, metadata):
        raise StorageError(f"{path} is damaged: it is not what was written. Make it again or restore a copy.")
    return arrays, metadata


def _digest(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """Return SHA-256, in hexadecimal, over the metadata and all arrays' names, types, shapes and bytes.

    It finds accidents, not forgeries.
    """
    names = sorted(arrays)
    header = [dict(metadata), [(name, arrays[name].dtype.str, arrays[name].shape) for name in names]]
    sha256 = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in names:
        sha256.update(arrays[name].data)
    return sha256.hexdigest()
