"""Arrays that are larger than memory: written one by one, and mapped instead of read."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sealign.errors import StorageError
from sealign.files.arrays import Array
from sealign.files.atomic import PRIVATE, replacing

_TYPES = {"uint8": "U8", "uint32": "U32", "float32": "F32", "float16": "F16"}
_HEADER_LENGTH = struct.Struct("<Q")


class ArrayWriter:
    """A writer of a safetensors file, array by array, so that they need not be in memory together.

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
        mode: int = PRIVATE,
    ) -> None:
        self._path, self._mode = path, mode
        self._expected = list(shapes.items())
        self._cleanup = ExitStack()
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
        self._stream = self._cleanup.enter_context(replacing(self._path, self._mode))
        self._stream.write(self._header)
        return self

    def append(self, name: str, array: Array) -> None:
        """Write the next array.

        Raises:
            ValueError: it is not the one that was announced.
        """
        expected, (shape, dtype) = self._expected.pop(0)
        if (name, array.shape, array.dtype) != (expected, shape, dtype):
            raise ValueError(f"{expected} of {shape} {dtype} was announced, {name} of {array.shape} {array.dtype} came")
        self._stream.write(np.ascontiguousarray(array).data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._expected:
            kind, error = ValueError, ValueError(f"{self._expected[0][0]} was announced and did not come")
        self._cleanup.__exit__(kind, error, trace)


def map_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays of a safetensors file, read-only and mapped into memory: pages are read when used, and shared.

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
        raise StorageError(f"could not read {path}: it is missing, cut or not a safetensors file.") from error
    return arrays, metadata
