"""Rows of numpy's .npy files, read in turn and in constant memory; standard input and gzip included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from sealign.errors import InvalidInputError

Row: TypeAlias = "NDArray[np.floating]"

_WANTED = "Give embeddings as numpy.save writes them: floats, of shape (rows, dimension), in C order."
_CHUNK = 1 << 20
"""Bytes that are read at once."""


def iterate_rows(stream: BinaryIO, name: str) -> Iterator[Row]:
    """Yield the rows of an array, each (d,).

    Args:
        stream: the file, at its start.
        name: of the file, for errors.

    Raises:
        InvalidInputError: another kind of file or array, or fewer rows than its header promises.
        OSError: it cannot be read.
    """
    (rows, dimension), kind = _header(stream, name)
    width = dimension * kind.itemsize
    at_once = max(_CHUNK // width, 1)
    for first in range(0, rows, at_once):
        wanted = min(at_once, rows - first)
        content = stream.read(wanted * width)
        yield from np.frombuffer(content[: len(content) // width * width], kind).reshape(-1, dimension)
        if len(content) < wanted * width:
            raise InvalidInputError(
                f"{name} ends in row {first + len(content) // width + 1} of {rows}. Take a whole copy."
            )


def _header(stream: BinaryIO, name: str) -> tuple[tuple[int, int], np.dtype[np.floating]]:
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, kind = read(stream)
    except ValueError as error:
        raise InvalidInputError(
            f"{name} is no .npy file, or damaged: {str(error).splitlines()[0]}. {_WANTED}"
        ) from None
    if fortran or kind.kind != "f" or len(shape) != 2 or 0 in shape:
        order = ", in Fortran order" if fortran else ""
        raise InvalidInputError(f"{name} holds an array of {kind} with shape {shape}{order}. {_WANTED}")
    return shape, kind
