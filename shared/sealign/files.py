"""Files that are either the old content or the new, never a mixture.

Arrays are stored as safetensors, everything else as JSON or TOML; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from sealign.errors import StorageError

Array = np.ndarray[Any, np.dtype[Any]]

_DIGEST = "sealign.sha256"
_TYPES = {"uint8": "U8", "uint32": "U32", "float32": "F32", "float16": "F16"}
_HEADER_LENGTH = struct.Struct("<Q")


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


class ArrayWriter:
    """Writes a safetensors file array by array, so that they need not be in memory together; atomic as the others.

    Use it as a context manager: the file appears when all arrays were written, and not if an error came up.

    Args:
        path: of the file.
        shapes: shape and type of each array, in the order in which they will come.
        metadata: strings to go with them.
        mode: of the file.

    Raises:
        StorageError: the file could not be written; the old file stays.
    """

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
        metadata: Mapping[str, str],
        *,
        mode: int = 0o644,
    ) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        self._expected = list(shapes.items())
        self._mode = mode
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        offset = 0
        for name, (shape, dtype) in shapes.items():
            end = offset + int(np.prod(shape)) * dtype.itemsize
            header[name] = {"dtype": _TYPES[dtype.name], "shape": shape, "data_offsets": (offset, end)}
            offset = end
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)  # arrays begin on a multiple of 8
        self._header = _HEADER_LENGTH.pack(len(encoded)) + encoded

    def __enter__(self) -> ArrayWriter:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._mode)
            self._stream: BinaryIO = os.fdopen(descriptor, "wb")
            self._stream.write(self._header)
        except OSError as error:
            raise StorageError(f"could not write {self._path}: {error.strerror}; free disk space") from error
        return self

    def append(self, name: str, array: Array) -> None:
        """Write the next array.

        Raises:
            ValueError: it is not the one that was announced.
            StorageError: the file could not be written.
        """
        expected, (shape, dtype) = self._expected.pop(0)
        if (name, array.shape, array.dtype) != (expected, shape, dtype):
            raise ValueError(f"{expected} of {shape} {dtype} was announced, {name} of {array.shape} {array.dtype} came")
        try:
            self._stream.write(np.ascontiguousarray(array).data)
        except OSError as error:
            raise StorageError(f"could not write {self._path}: {error.strerror}; free disk space") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._stream:
                self._stream.flush()
                os.fsync(self._stream.fileno())
            if kind is None and not self._expected:
                self._temporary.replace(self._path)
        except OSError as failure:
            raise StorageError(f"could not write {self._path}: {failure.strerror}; free disk space") from failure
        finally:
            self._temporary.unlink(missing_ok=True)


def map_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays of a safetensors file, read-only and mapped into memory: pages are read when used, and shared.

    Raises:
        StorageError: the file is missing or cut, or holds types of which none are written here.
    """
    types = {code: np.dtype(name) for name, code in _TYPES.items()}
    try:
        with path.open("rb") as stream:
            (length,) = _HEADER_LENGTH.unpack(stream.read(_HEADER_LENGTH.size))
            header = json.loads(stream.read(min(length, 1 << 26)))
        whole = np.memmap(path, dtype=np.uint8, mode="r", offset=_HEADER_LENGTH.size + length)
        metadata = header.pop("__metadata__", {})
        arrays = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            arrays[name] = whole[start:end].view(types[entry["dtype"]]).reshape(entry["shape"])
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"could not read {path}: it is missing, cut or not a safetensors file") from error
    return arrays, metadata
