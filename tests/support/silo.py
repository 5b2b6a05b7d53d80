"""A silo and its client over mutual TLS, and what the silo's answers must agree with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap
from sealign.ckks import DEFAULT_PRECISION
from sealign.encoders import Encoder, EncoderCard
from sealign.heads import ServedHead
from sealign.protocol import EMBEDDINGS, AlignmentRequest, RowKind
from sealign_server.ledger import Ledger
from sealign_server.serving.plain_alignment import PlainAlignment
from sealign_server.serving.served_tasks import LoadedTask
from sealign_server.serving.space import Space
from sealign_server.settings import ServingOptions
from sealign_server.store import MapRecord, SiloStore
from tests.support.certificates import Authority, Identity
from tests.support.processes import Server, serving
from tests.support.wire import Embeddings

if TYPE_CHECKING:
    from sealign_client import Client, ClientSettings

TASK = "topics"


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
        from sealign_client import ClientSettings

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


def space_of(store: SiloStore, options: ServingOptions | None = None) -> Space:
    """The silo's embedding space, without a process that serves it."""
    return Space(EMBEDDINGS, store.space, Ledger(store.ledger_path), options or ServingOptions())


def align_plain(space: Space, identity: str, encoder: EncoderCard, public_set: str, rows: Embeddings) -> MapRecord:
    """Learn a client's map as plain alignment does, in this process."""
    alignment = PlainAlignment(space, identity, AlignmentRequest(space.name, encoder, public_set, len(rows)))
    alignment.add(rows)
    return alignment.learn()


@dataclass(frozen=True)
class ClearModel:
    """Map and head as the silo stores them: what the ciphertexts must agree with."""

    map: AffineMap
    served: ServedHead
    rows: RowKind = field(repr=False)

    @classmethod
    def load(cls, directory: Path, identity: Identity, fingerprint: str, name: str = TASK) -> ClearModel:
        store = SiloStore(directory)
        record = store.space.map_records(fingerprint, identity.subject)[0]
        learned = store.space.load_map(identity.subject, record.card.id)
        task = LoadedTask.load(name, "", store.tasks.load(name))
        head = task.behind(learned.channel, ServingOptions()).head
        return cls(learned, head, RowKind(fingerprint, record.card.id))

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
    directory: Path, tls: Tls, encoder: Encoder, log: Path, *options: object, port: int = 0
) -> Iterator[tuple[Server, Client]]:
    """A silo that a test may harm, and its client."""
    from sealign_client import Client

    flags = (*tls.serve_options, "--listen", f"127.0.0.1:{port}", *options)
    with (
        serving("sealign-server", "serve", directory, *flags, log=log) as silo,
        Client(tls.client_settings(silo.port), encoder=encoder) as client,
    ):
        yield silo, client


def assert_right(client: Client, directory: Path, rows: Embeddings, identity: Identity) -> None:
    """The silo's answers agree with what its directory holds."""
    clear = ClearModel.load(directory, identity, client.encoder.card.fingerprint)
    assert np.abs(client.logits(rows) - clear.logits(rows)).max() <= DEFAULT_PRECISION
