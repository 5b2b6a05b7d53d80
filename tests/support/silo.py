"""A silo and its client over mutual TLS, and what the silo's answers must agree with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sealign_server.served_task import LoadedTask

from sealign.alignment import AffineMap
from sealign.encoders import Encoder
from sealign.heads import ServedHead
from sealign_client import Client, ClientSettings
from sealign_server.settings import ServeSettings
from sealign_server.store import SiloStore
from tests.support.certificates import Authority, Identity
from tests.support.processes import Server, serving
from tests.support.wire import Embeddings

TASK = "topics"
_SETTINGS = ServeSettings(tls_cert=Path("unused"), tls_key=Path("unused"))


@dataclass(frozen=True)
class Tls:
    """Both sides' certificates, from one authority."""

    authority: Authority
    silo: Identity
    client: Identity

    @property
    def serve_options(self) -> tuple[object, ...]:
        """Flags of ``sealign-server serve`` for mutual TLS on any free port."""
        files = ("--tls-cert", self.silo.certificate, "--tls-key", self.silo.key)
        return (*files, "--tls-client-ca", self.authority.certificate, "--listen", "127.0.0.1:0")

    def client_settings(self, port: int, **fields: object) -> ClientSettings:
        """Settings of a client with a certificate."""
        return ClientSettings(
            silo=f"localhost:{port}",
            tls_ca=self.authority.certificate,
            tls_cert=self.client.certificate,
            tls_key=self.client.key,
            **fields,  # type: ignore[arg-type]
        )

    def client_options(self, port: int) -> tuple[object, ...]:
        """The same as flags of ``sealign``."""
        files = ("--tls-ca", self.authority.certificate, "--tls-cert", self.client.certificate)
        return ("--silo", f"localhost:{port}", *files, "--tls-key", self.client.key)


@dataclass(frozen=True)
class ClearModel:
    """Map and head as the silo stores them: what the ciphertexts must agree with."""

    map: AffineMap
    served: ServedHead

    @classmethod
    def load(cls, directory: Path, fingerprint: str) -> ClearModel:
        store = SiloStore(directory)
        learned = store.load_map(fingerprint)
        task = LoadedTask.load(store, TASK)
        return cls(learned, task.behind(learned.channel, _SETTINGS).head)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.served.head.labels

    def outputs(self, rows: Embeddings) -> NDArray[np.float64]:
        """Outputs in the clear, shape (n, outputs)."""
        return self.served.outputs(self.map.apply(rows))

    def logits(self, rows: Embeddings) -> NDArray[np.float64]:
        """Logits in the clear, shape (n, C)."""
        return self.served.head.logits(self.map.apply(rows))


@contextmanager
def own_silo(
    directory: Path, tls: Tls, encoder: Encoder, log: Path, *, port: int = 0
) -> Iterator[tuple[Server, Client]]:
    """A silo that a test may harm, and its client."""
    options = (*tls.serve_options, "--listen", f"127.0.0.1:{port}")
    with (
        serving("sealign-server", "serve", directory, *options, log=log) as silo,
        Client(tls.client_settings(silo.port), encoder=encoder) as client,
    ):
        yield silo, client


def assert_right(client: Client, directory: Path, rows: Embeddings) -> None:
    """The silo's answers agree with what its directory holds."""
    clear = ClearModel.load(directory, client.encoder.card.fingerprint)
    assert np.abs(client.logits(rows) - clear.logits(rows)).max() <= 1 / 256
