"""Settings come in layers, and no layer may hold what no field has the name of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sealign.errors import InvalidInputError
from tests.unit.app.sample import Mode, SampleSettings


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SEALIGN_"):
            monkeypatch.delenv(name)


def _load(file: Path | None = None, **arguments: Any) -> SampleSettings:
    return SampleSettings.load(file, {"tls_cert": "silo.pem", **arguments})


def _toml(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "silo.toml"
    file.write_text(text, "utf-8")
    return file


def test_arguments_go_before_variables_and_variables_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _toml(tmp_path, 'workers = 2\nmode = "encrypted"\nbatch_rows = [4]')
    monkeypatch.setenv("SEALIGN_SILO_WORKERS", "3")
    monkeypatch.setenv("SEALIGN_SILO_BATCH_ROWS", "8, 16")
    loaded = _load(file, workers=None, batch_rows="1,2")
    assert (loaded.workers, loaded.batch_rows, loaded.mode) == (3, (1, 2), Mode.ENCRYPTED)
    assert _load(file).batch_rows == (8, 16)
    assert _load().mode is Mode.PLAIN


@pytest.mark.parametrize("name", ["tls_client_caa", "tls-client-ca", "tls_clientca", "TLS_CLIENT_CA"])
def test_an_unknown_key_names_the_nearest(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"There is no key {name} of .*: did you mean key tls_client_ca of"):
        _load(_toml(tmp_path, f'{name} = "ca.pem"'))


def test_a_table_is_an_unknown_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"There is no key serve of .*silo\.toml: remove it"):
        _load(_toml(tmp_path, '[serve]\ntls_client_ca = "ca.pem"'))


def test_an_unknown_argument_names_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match=r"There is no setting worker: did you mean setting workers\?"):
        _load(worker=3)
    with pytest.raises(InvalidInputError, match="There is no setting nonsense: remove it"):
        _load(nonsense=1)


@pytest.mark.parametrize(
    "name", ["SEALIGN_SILO_TLS_CLIENTCA", "SEALIGN_SILO_tls_client_ca", "SEALIGN_TLS_CLIENT_CA", "SEALIGN_TLS_CLIENTCA"]
)
def test_an_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "ca.pem")
    with pytest.raises(
        InvalidInputError, match=f"There is no variable {name}: did you mean variable SEALIGN_SILO_TLS_CLIENT_CA?"
    ):
        _load()


def test_variables_of_other_programs_and_of_the_cluster_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALIGN_CLIENT_TLS_CERT", "client.pem")
    monkeypatch.setenv("SEALIGN_CLIENT_WORKERS", "3")
    monkeypatch.setenv("SEALIGN_RUN", "/run")
    monkeypatch.setenv("SEALIGN_SILO_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SEALIGN_SILO_PORT", "tcp://10.0.0.1:7443")
    monkeypatch.setenv("SEALIGN_SILO_PORT_7443_TCP_ADDR", "10.0.0.1")
    assert _load().workers == 1
    monkeypatch.setenv("SEALIGN_SILO_PORT", "7443")
    with pytest.raises(InvalidInputError, match="There is no variable SEALIGN_SILO_PORT"):
        _load()


def test_an_empty_variable_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORKERS", "TLS_CLIENT_CA", "PASSPHRASE", "MODE", "BATCH_ROWS", "NO_SUCH_SETTING"):
        monkeypatch.setenv(f"SEALIGN_SILO_{name}", "")
    loaded = _load(_toml(tmp_path, "workers = 5"))
    assert loaded.workers == 5
    assert loaded.tls_client_ca is None
    assert loaded.passphrase is None


def test_every_fault_is_told_at_once_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALIGN_SILO_BATCH_ROWS", "1,0")
    with pytest.raises(InvalidInputError) as caught:
        SampleSettings.load(_toml(tmp_path, "workers = 300\nworker = 2"), {"mode": "plane", "listen": "::1:99999"})
    message = str(caught.value)
    assert "Variable SEALIGN_SILO_BATCH_ROWS, entry 1: Input should be greater than or equal to 1." in message
    assert f"Key workers of {tmp_path / 'silo.toml'}: Input should be less than or equal to 256." in message
    assert "There is no key worker of" in message
    assert "Setting mode: Input should be 'plain' or 'encrypted'." in message
    assert "Setting listen: Address '::1:99999' must be host:port" in message
    assert "give --tls-cert, the variable SEALIGN_SILO_TLS_CERT or the key tls_cert of" in message


def test_text_for_a_list_that_is_neither_json_nor_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALIGN_SILO_BATCH_ROWS", "[1, 32")
    with pytest.raises(InvalidInputError, match="Variable SEALIGN_SILO_BATCH_ROWS is neither JSON nor separated by"):
        _load()
    monkeypatch.setenv("SEALIGN_SILO_BATCH_ROWS", "[1, 32]")
    monkeypatch.setenv("SEALIGN_SILO_LIMITS", '{"topics": 9}')
    assert (_load().batch_rows, _load().limits) == ((1, 32), {"topics": 9})
    monkeypatch.setenv("SEALIGN_SILO_LIMITS", "topics=9")
    with pytest.raises(InvalidInputError, match="Variable SEALIGN_SILO_LIMITS: Input should be a valid dictionary"):
        _load()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"Could not read the settings file .*none\.toml: No such file"):
        _load(tmp_path / "none.toml")
    with pytest.raises(InvalidInputError, match=r"silo\.toml is not TOML: .*line 1"):
        _load(_toml(tmp_path, "workers = \n"))
    (tmp_path / "silo.toml").write_bytes(b'mode = "\xff"')
    with pytest.raises(InvalidInputError, match=r"silo\.toml is not UTF-8"):
        _load(tmp_path / "silo.toml")
    (tmp_path / "silo.toml").write_bytes(b"\xef\xbb\xbfworkers = 2")
    assert _load(tmp_path / "silo.toml").workers == 2


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=4, max_size=7))
def test_a_secret_is_in_no_error_and_no_repr(secret: str) -> None:
    secret = f"<{secret}>"[:7]
    with pytest.raises(InvalidInputError) as caught:
        _load(passphrase=secret, workers=0)
    assert secret not in str(caught.value)
    assert secret not in repr(_load(passphrase=f"{secret} is long enough"))
