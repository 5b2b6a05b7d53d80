"""The committed stubs are what the contract generates."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def test_committed_stubs_equal_a_fresh_generation(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools (extra `dev`)")
    spec = spec_from_file_location("generate", REPOSITORY / "proto" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generator = module_from_spec(spec)
    spec.loader.exec_module(generator)
    generator.generate(tmp_path)
    committed = {path.name: path.read_text() for path in generator.STUBS.iterdir() if path.is_file()}
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert committed == fresh, "run: python proto/generate.py"
