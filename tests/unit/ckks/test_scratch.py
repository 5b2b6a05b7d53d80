"""The files that SEAL saves to: one a thread, in memory where the system has that, else temporary and private."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sealign.ckks import SecretKey, parameter_set
from sealign.ckks import scratch as module
from sealign.ckks.serialization import save_secret_key
from tests.unit.ckks.parties import Parties, head, unit_rows


@pytest.fixture(params=["memory", "portable"])
def _system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if request.param == "portable":
        monkeypatch.delattr(os, "memfd_create")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elif not module.has_memory_files():
        pytest.skip("this system has no memory files")
    monkeypatch.setattr(module, "_threads", module._Threads())


@pytest.mark.usefixtures("_system")
def test_products_and_keys_on_any_system(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    parties = Parties.meet(*head(generator, 60, 3))
    X = unit_rows(generator, 1, 60)
    assert np.abs(parties.encrypted(X) - parties.clear(X)).max() <= parties.plan.precision
    parties.cipher.key.save(tmp_path / "key", "secret")
    again = SecretKey.load(tmp_path / "key", "secret")
    assert save_secret_key(again._key) == save_secret_key(parties.cipher.key._key)


@pytest.mark.usefixtures("_system")
def test_threads_do_not_share_a_file() -> None:
    generator = np.random.default_rng(2)
    parties = Parties.meet(*head(generator, 60, 3))
    rows = [unit_rows(generator, 1, 60) for _ in range(40)]
    with ThreadPoolExecutor(4) as threads:
        for X, Y in zip(rows, threads.map(parties.encrypted, rows), strict=True):
            assert np.abs(Y - parties.clear(X)).max() <= parties.plan.precision


@pytest.mark.usefixtures("_system")
def test_a_secret_key_is_not_left_in_the_file() -> None:
    key = SecretKey.generate(parameter_set("ckks-2048-36"))
    save_secret_key(key._key)
    assert module.scratch().read() == b""


def test_a_temporary_file_is_private_and_removed() -> None:
    file = module.TemporaryFile()
    path = Path(file.path)
    file.write(b"content")
    assert file.read() == b"content"
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    del file
    assert not path.exists()


@pytest.mark.skipif(not module.has_memory_files(), reason="this system has no memory files")
def test_queries_make_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    parties = Parties.meet(*head(generator, 60, 3))
    X = unit_rows(generator, 1, 60)
    parties.encrypted(X)
    monkeypatch.setattr(os, "memfd_create", None)  # a new one would fail
    parties.encrypted(X)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_a_file_of_its_own() -> None:
    before = module.scratch()
    before.write(b"the parent's")
    child = os.fork()
    if child == 0:
        module.scratch().write(b"the child's")
        os._exit(0 if module.scratch() is not before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert before.read() == b"the parent's"
