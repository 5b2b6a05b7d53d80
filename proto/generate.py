"""Generate the Python stubs of the wire contract: ``python proto/generate.py [OUTPUT_DIRECTORY]``."""

from __future__ import annotations

import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parent.parent
ROOT = REPOSITORY / "proto"
PACKAGE = "sealign/v1"
STUBS = REPOSITORY / "shared" / "sealign" / "protocol" / "v1"
_EXPECTED = re.compile(r"\bsealign\.v1(?= import |\.\w+_pb2)")
"""Where protoc expects the stubs of the package, in import statements and the names that they bring."""
PROGRAMS = Path(sys.executable).parent


def generate(output: Path) -> None:
    """Write stubs and type stubs for every contract file into ``output``."""
    well_known = resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [
            "protoc",
            f"--proto_path={ROOT}",
            f"--proto_path={well_known}",
            f"--python_out={scratch}",
            f"--grpc_python_out={scratch}",
            # By their paths: this environment's programs need not be on the PATH.
            *(f"--plugin={name}={PROGRAMS / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
            f"--mypy_out={scratch}",
            f"--mypy_grpc_out={scratch}",
            *(f"{PACKAGE}/{path.name}" for path in sorted((ROOT / PACKAGE).glob("*.proto"))),
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed; see its message above")
        output.mkdir(parents=True, exist_ok=True)
        for path in sorted((Path(scratch) / PACKAGE).iterdir()):
            (output / path.name).write_text(_EXPECTED.sub("sealign.protocol.v1", path.read_text()))
    (output / "__init__.py").write_text('"""Generated from proto/sealign/v1 by proto/generate.py."""\n')


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else STUBS)
