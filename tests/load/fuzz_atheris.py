"""The decoders under atheris, which looks for new paths through them: ``python -m tests.load.fuzz_atheris [runs]``.

Needs `pip install atheris` on Linux. It ends with the input that broke a decoder, if one did.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sealign"]):
    from tests.load.decoders import decoders
    from tests.load.fuzz import decode


def main(runs: int) -> None:
    """Decode so many inputs, whose first byte says by which decoder."""
    known = decoders()

    def one(data: bytes) -> None:
        if data:
            decode(known[data[0] % len(known)], data[1:])

    with tempfile.TemporaryDirectory() as corpus:
        for number, decoder in enumerate(known):
            (Path(corpus) / str(number)).write_bytes(bytes([number]) + decoder.message)
        atheris.Setup([sys.argv[0], f"-runs={runs}", "-max_len=32768", "-timeout=10", corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
