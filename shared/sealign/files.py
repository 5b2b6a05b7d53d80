"""Files that are either the old content or the new, never a mixture.

Arrays are stored as safetensors, everything else as JSON or TOML; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from sealign.errors import StorageError

Array = np.ndarray[Any, np.dtype[Any]]

_DIGEST = "sealign.sha256"


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace the file at ``path`` by ``content``: write beside it, fsync, rename.

    Raises:
        StorageError: the file could not be written (disk full, permissions); the old file stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}; the previous file, if any, is intact. "
            "Free disk space or fix permissions, then try again."
        ) from error


def save_arrays(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str], *, mode: int = 0o644) -> None:
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
        raise StorageError(f"numpy cannot read {path} ({error}); store its arrays as float32") from error
    except (OSError, SafetensorError) as error:
        raise StorageError(f"could not read {path} as safetensors: {error}") from error
    digest = metadata.pop(_DIGEST, None)
    if digest is not None and digest != _digest(arrays, metadata):
        raise StorageError(f"{path} is damaged: it is not what was written; make it again or restore a copy")
    return arrays, metadata


def _digest(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """SHA-256, in hexadecimal, over the metadata and all arrays' names, types, shapes and bytes.

    It finds accidents, not forgeries.
    """
    names = sorted(arrays)
    header = [dict(metadata), [(name, arrays[name].dtype.str, arrays[name].shape) for name in names]]
    sha256 = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in names:
        sha256.update(arrays[name].data)
    return sha256.hexdigest()
