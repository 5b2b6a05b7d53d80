"""Files that are either the old content or the new, never a mixture.

Arrays are stored as safetensors, everything else as JSON or TOML; nothing is ever unpickled. Files can be read by
their owner alone unless ``mode=PUBLIC`` says otherwise.
"""

from sealign.files.arrays import Array, load_arrays, save_arrays
from sealign.files.atomic import PRIVATE, PUBLIC, write_atomically
from sealign.files.mapped import ArrayWriter, map_arrays
from sealign.files.rows import RowSpool, load_rows, resumed_rows, row_parts, save_rows, spilled_rows

__all__ = [
    "PRIVATE",
    "PUBLIC",
    "Array",
    "ArrayWriter",
    "RowSpool",
    "load_arrays",
    "load_rows",
    "map_arrays",
    "resumed_rows",
    "row_parts",
    "save_arrays",
    "save_rows",
    "spilled_rows",
    "write_atomically",
]
