"""Alignment under encryption over TLS with real processes: the map, its use, interruptions, refusals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from sealign.alignment import AffineMap, RidgeStatistics, ScaledRows, fit_ridge
from sealign.ckks import Cipher, SecretKey, SecurityTable
from sealign.errors import (
    InvalidInputError,
    NoMapError,
    NotFoundError,
    NotPermittedError,
    OverloadedError,
    ReleaseRefusedError,
    StorageError,
    UnavailableError,
    UnknownSessionError,
)
from sealign.protocol.conversions.types import (
    encoder_to_wire,
    matrix_to_wire,
    plan_from_wire,
    product_from_wire,
    public_key_to_wire,
    rows_to_wire,
)
from sealign.protocol.rows import ClientMap, RowKind
from sealign.protocol.v1 import alignment_pb2 as pb
from sealign.protocol.v1 import classification_pb2
from sealign_client import Client, Transfer
from sealign_client.cli import main
from sealign_server.ledger import Ledger, Releases
from sealign_server.store import SiloStore
from tests.support.processes import Server, command, serving
from tests.support.relay import Relay
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, SILO_DIMENSION, TEXTS, ViewEncoder, client_encoder, few_texts, make_silo
from tests.support.wire import Stubs, raw_stubs, refused

QUERIES = [f"query {number}" for number in range(60)]


@contextmanager
def silo_of(directory: Path, tls: Tls, *options: object, log: str = "silo.log") -> Iterator[Server]:
    with serving("sealign-server", "serve", directory, *tls.serve_options, *options, log=directory / log) as server:
        yield server


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A silo's directory of this test's own."""
    return make_silo(tmp_path / "silo").directory


@pytest.fixture
def server(directory: Path, tls: Tls) -> Iterator[Server]:
    with silo_of(directory, tls, "--log-level", "debug") as server:
        yield server


@pytest.fixture
def encoder() -> ViewEncoder:
    return client_encoder()


@pytest.fixture
def client(server: Server, tls: Tls, encoder: ViewEncoder, tmp_path: Path) -> Iterator[Client]:
    with Client(tls.client_settings(server.port, map_directory=tmp_path / "maps"), encoder=encoder) as client:
        yield client


def clear_ridge(directory: Path, encoder: ViewEncoder, penalty: float) -> AffineMap:
    """The ridge map in the clear, of both sides' embeddings."""
    target = SiloStore(directory).space.load_public_set(PUBLIC.digest).rows
    statistics = RidgeStatistics(encoder.card.dimension, SILO_DIMENSION)
    statistics.update(encoder.encode(PUBLIC.texts), target)
    return fit_ridge(statistics, [penalty], source_fingerprint="a", target_fingerprint="b", public_set="c")


def ledger(directory: Path) -> Releases:
    return Releases(Ledger(SiloStore(directory).ledger_path))


def releases(directory: Path) -> int:
    return len(ledger(directory).all())


def files(directory: Path, suffix: str) -> list[Path]:
    """Files of a directory by their suffix."""
    return sorted(directory.glob(f"*{suffix}"))


def silent(client: Client) -> dict[str, bool]:
    """Without a registration, the silo serves the head that it has, which is what the clear computation uses."""
    return {"register": False}


def assert_right(client: Client, directory: Path) -> None:
    """Logits through the client's own map are those of the clear ridge map."""
    card = client.describe()
    assert card.map is not None
    encoder = client_encoder()
    learned = clear_ridge(directory, encoder, card.map.penalty)
    head = SiloStore(directory).tasks.load("colours").trained.head
    rows = encoder.encode(QUERIES)
    assert np.abs(client.logits(rows) - head.logits(learned.apply(rows))).max() < 0.02


def test_map_is_the_clear_ridge_solution_and_is_used(
    client: Client, server: Server, directory: Path, encoder: ViewEncoder, tls: Tls, tmp_path: Path
) -> None:
    with pytest.raises(NoMapError):
        client.classify(QUERIES)
    seen: list[Transfer] = []
    card = client.align(PUBLIC, mode="encrypted", transfer=seen.append)
    assert card.mean_cosine is None
    assert 0.5 < card.explained_variance < 1
    (path,) = files(tmp_path / "maps", ".safetensors")
    own, clear = AffineMap.load(path), clear_ridge(directory, encoder, card.penalty)
    assert np.linalg.norm(own.weight - clear.weight) <= 1e-3 * np.linalg.norm(clear.weight)
    progress = [now.sent + now.received for now in seen]
    assert progress == sorted(progress)
    assert progress[-1] == seen[-1].total > 0
    assert client.describe().map == card
    assert_right(client, directory)
    # The silo has neither a map nor embeddings of this client, and knows what it gave.
    assert not SiloStore(directory).space.map_records()
    (release,) = ledger(directory).all()
    assert (release.rows, release.identity) == (TEXTS, tls.client.subject)
    info = command("sealign-server", "info", directory).stdout
    assert PUBLIC.digest[:12] in info
    # A second client with the same map directory uses the map; without, or at the silo's placement, there is none.
    with Client(tls.client_settings(server.port, map_directory=tmp_path / "maps"), encoder=encoder) as second:
        assert len(second.classify(QUERIES)) == len(QUERIES)
        assert second.describe().map == card
    with Client(
        tls.client_settings(server.port, map_directory=tmp_path / "maps", placement="silo"), encoder=encoder
    ) as at_silo:
        with pytest.raises(NoMapError):
            at_silo.classify(QUERIES)
        at_silo.align(PUBLIC)
        agreement = np.abs(at_silo.logits(encoder.encode(QUERIES)) - client.logits(encoder.encode(QUERIES)))
        assert agreement.max() < 0.2  # another penalty
    with (
        Client(tls.client_settings(server.port, placement="client"), encoder=encoder) as no_map,
        pytest.raises(NoMapError, match="mode"),
    ):
        no_map.classify(QUERIES)


def test_second_release_is_refused_and_the_map_stays(
    client: Client, directory: Path, encoder: ViewEncoder, tmp_path: Path
) -> None:
    client.align(PUBLIC, mode="encrypted")
    (path,) = files(tmp_path / "maps", ".safetensors")
    before = path.read_bytes()
    with pytest.raises(ReleaseRefusedError, match="max_releases"):
        client.align(PUBLIC, mode="encrypted")
    assert releases(directory) == 1
    assert path.read_bytes() == before
    assert_right(client, directory)


def test_too_few_texts_and_another_set(client: Client, directory: Path) -> None:
    with pytest.raises(InvalidInputError, match="needs at least 96 public texts"):
        client.align(few_texts(), mode="encrypted")
    with pytest.raises(NotFoundError, match="byte for byte"):
        client.align(type(PUBLIC)((*PUBLIC.texts[1:], "one line differs")), mode="encrypted")
    assert releases(directory) == 0


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_embeddings_that_are_not_finite(
    client: Client, directory: Path, encoder: ViewEncoder, monkeypatch: pytest.MonkeyPatch, broken: float
) -> None:
    rows = encoder.encode(PUBLIC.texts)
    rows[17, 3] = broken
    monkeypatch.setattr(encoder, "encode", lambda *_, **__: rows)
    with pytest.raises(InvalidInputError, match="a vector that is not finite, or is zero, for text 18"):
        client.align(PUBLIC, mode="encrypted")
    assert releases(directory) == 0


def test_rank_deficient_embeddings_are_ordinary(
    client: Client, directory: Path, encoder: ViewEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = encoder.encode

    def flat(texts: list[str], **_: object) -> object:
        rows = original(texts)
        rows[:, 5], rows[:, 6] = rows[:, 4], 0.0
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr(encoder, "encode", flat)
    card = client.align(PUBLIC, mode="encrypted")
    assert np.isfinite(client.logits(encoder.encode(QUERIES))).all()
    clear = clear_ridge(directory, encoder, card.penalty)
    (path,) = files(tmp_path / "maps", ".safetensors")
    own = AffineMap.load(path)
    assert np.linalg.norm(own.weight - clear.weight) <= 1e-3 * np.linalg.norm(clear.weight)


@pytest.mark.parametrize("after", [60_000, 120_000])
def test_a_cut_connection_resumes(server: Server, directory: Path, encoder: ViewEncoder, tls: Tls, after: int) -> None:
    """Up to a cut in the middle of the blocks, and one in the middle of the parts of the product."""
    notes: list[Transfer] = []
    with Relay(server.port) as relay:
        relay.cut_after(sent=after) if after == 60_000 else relay.cut_after(received=after)
        with Client(tls.client_settings(relay.port), encoder=encoder) as client:
            client.align(PUBLIC, mode="encrypted", transfer=notes.append)
            assert relay.cuts == 1
            assert_right(client, directory)
    assert any("went away" in now.note for now in notes)
    assert len(server.events("encrypted alignment begun")) == 1
    sent = [now.sent for now in notes]
    assert sent == sorted(sent)  # no inner block was summed twice
    assert releases(directory) == 1


def test_a_silo_that_restarts_is_begun_with_anew(directory: Path, encoder: ViewEncoder, tls: Tls) -> None:
    notes: list[Transfer] = []
    with Relay() as relay, silo_of(directory, tls, log="first.log") as first:
        relay.target = first.port

        def restart(now: Transfer) -> None:
            notes.append(now)
            if now.sent and first.is_running:
                first.end(signal.SIGKILL)

        with Client(tls.client_settings(relay.port), encoder=encoder) as client:
            client.describe()
            with silo_of(directory, tls, log="second.log") as second:
                relay.next_target = second.port
                client.align(PUBLIC, mode="encrypted", transfer=restart)
                assert_right(client, directory)
    assert any("starting again" in now.note for now in notes)
    assert releases(directory) == 1


class Raw:
    """An encrypted alignment put together by hand."""

    def __init__(self, stubs: Stubs, encoder: ViewEncoder) -> None:
        self.stubs = stubs
        self.encoder = encoder
        self.rows = ScaledRows.of(encoder.encode(PUBLIC.texts)).rows
        self.key: pb.AlignEncryptedHeader | None = None

    def header(
        self, session: bytes | None = None, parts_received: int = 0, **fields: object
    ) -> pb.AlignEncryptedRequest:
        alignment = pb.AlignmentHeader(
            space="embeddings", encoder=encoder_to_wire(self.encoder.card), public_set=PUBLIC.digest, rows=TEXTS
        )
        for name, value in fields.items():
            setattr(alignment, name, value)
        key = public_key_to_wire(self.cipher.key.public_key) if hasattr(self, "cipher") else None
        header = pb.AlignEncryptedHeader(alignment=alignment, key=key, session=session, parts_received=parts_received)
        return pb.AlignEncryptedRequest(header=header)

    def blocks(self, plan: object) -> list[pb.AlignEncryptedRequest]:
        checked = plan_from_wire(plan, SecurityTable.CLASSICAL)  # type: ignore[arg-type]
        self.cipher = Cipher(checked, SecretKey.generate(checked.parameters))
        return [
            pb.AlignEncryptedRequest(block=pb.InnerBlock(index=index, rows=matrix_to_wire(block)))
            for index, block in enumerate(self.cipher.encrypt_blocks(self.rows))
        ]

    def call(self, *requests: pb.AlignEncryptedRequest) -> list[pb.AlignEncryptedReply]:
        return list(self.stubs.alignment.AlignEncrypted(iter(requests), timeout=60))

    def offer(self) -> pb.AlignmentOffer:
        """Begin, and go away."""
        call = self.stubs.alignment.AlignEncrypted(iter([self.header()]), timeout=60)
        offer = next(call).offer
        with pytest.raises(grpc.RpcError):
            list(call)
        return offer


@pytest.fixture
def raw(server: Server, tls: Tls, encoder: ViewEncoder) -> Iterator[Raw]:
    with raw_stubs(server.address, tls.authority, tls.client) as stubs:
        yield Raw(stubs, encoder)


RECEIVED = pb.AlignEncryptedRequest(received=pb.ProductReceived())
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError)


def test_requests_that_cannot_be_right(raw: Raw, directory: Path) -> None:
    blocks = raw.blocks(raw.offer().plan)
    header = raw.header()
    with refused(*INVALID, "'header' was expected"):
        raw.call(blocks[0])
    with refused(*INVALID, "2000 rows, the client announces 1999"):
        raw.call(raw.header(rows=1999))
    with refused(grpc.StatusCode.NOT_FOUND, NotFoundError, "it holds"):
        raw.call(raw.header(public_set="0" * 64))
    with refused(*INVALID, "inner block 1 came"):
        raw.call(header, blocks[1])
    with refused(*INVALID, "inner block 0 came"):
        raw.call(header, blocks[0], blocks[0])
    with refused(*INVALID, "'block' was expected"):
        raw.call(header, header)
    with refused(grpc.StatusCode.UNAVAILABLE, UnavailableError, "come back"):
        raw.call(header, *blocks[:-1])
    with refused(grpc.StatusCode.FAILED_PRECONDITION, UnknownSessionError, "start again"):
        raw.call(raw.header(session=b"x" * 16, parts_received=1))
    cut = pb.AlignEncryptedRequest.FromString(blocks[0].SerializeToString())
    cut.block.rows.digest = bytes(16)
    with refused(*INVALID, "digest"):
        raw.call(header, cut)
    whole = next(raw.cipher.encrypt_blocks(raw.rows))
    for count in {0, len(whole.ciphertexts) - 1, len(whole.ciphertexts) + 1}:
        ciphertexts = (whole.ciphertexts * 2)[:count]
        other = pb.InnerBlock(index=0, rows=matrix_to_wire(replace(whole, ciphertexts=ciphertexts)))
        with refused(*INVALID, "plan"):
            raw.call(header, pb.AlignEncryptedRequest(block=other))
    with refused(grpc.StatusCode.NOT_FOUND, NotFoundError, "it holds"):
        rows = RowKind(raw.encoder.card.fingerprint, ClientMap("0" * 64))
        raw.stubs.classification.DescribeTasks(classification_pb2.DescribeTasksRequest(rows=rows_to_wire(rows)))
    few = few_texts()
    with refused(grpc.StatusCode.PERMISSION_DENIED, ReleaseRefusedError, "95 texts"):
        raw.call(raw.header(public_set=few.digest, rows=len(few)))
    assert releases(directory) == 0


def test_the_same_parts_again_are_one_release(raw: Raw, directory: Path) -> None:
    """A client that lost parts gets the same bytes; one that has all cannot come back."""
    blocks = raw.blocks(raw.offer().plan)
    replies: list[pb.AlignEncryptedReply] = []
    with refused(grpc.StatusCode.UNAVAILABLE, UnavailableError, "come back"):  # no word that all has come
        replies.extend(raw.stubs.alignment.AlignEncrypted(iter([raw.header(), *blocks]), timeout=60))
    session, parts = replies[0].offer.session, [r.product for r in replies if r.WhichOneof("part") == "product"]
    again = raw.call(raw.header(session=session, parts_received=1), RECEIVED)
    assert [reply.product for reply in again[1:]] == parts[1:]
    assert releases(directory) == 1
    product = raw.cipher.decrypt(
        product_from_wire(parts[0].product, raw.cipher.plan.counts[2]), raw.cipher.plan.block.rows
    )
    target = SiloStore(directory).space.load_public_set(PUBLIC.digest).rows.astype(np.float64)
    expected = raw.rows[: len(product)] @ (target - target.mean(axis=0))
    assert np.abs(product - expected).max() <= raw.cipher.plan.precision
    with refused(grpc.StatusCode.FAILED_PRECONDITION, UnknownSessionError, "start again"):
        raw.call(raw.header(session=session, parts_received=1))
    with refused(grpc.StatusCode.PERMISSION_DENIED, ReleaseRefusedError, "which is all it allows"):
        raw.call(raw.header(session=session))


def test_invented_encoders_win_nothing(raw: Raw, directory: Path) -> None:
    """Fingerprints are the client's word; the dimensions released to it are limited in sum."""
    blocks = raw.blocks(raw.offer().plan)
    raw.call(raw.header(), *blocks, RECEIVED)
    recorded = ledger(directory)
    (release,) = recorded.all()
    for number in range(1, TEXTS // 4 // release.dimension):
        recorded.record(replace(release, encoder=f"{number:064x}"))
    raw.encoder.card = raw.encoder.card.model_copy(update={"fingerprint": "e" * 64})
    with refused(grpc.StatusCode.PERMISSION_DENIED, ReleaseRefusedError, "more than a quarter"):
        raw.call(raw.header())


def test_one_alignment_at_a_time(directory: Path, encoder: ViewEncoder, tls: Tls) -> None:
    """A stranger is told to come back; a client that stays away is given up, its memory with it."""
    stranger = tls.authority.issue("stranger", "stranger")
    seconds = 1.0
    with (
        silo_of(directory, tls, "--alignment-seconds", seconds, "--max-alignments", 1) as server,
        raw_stubs(server.address, tls.authority, tls.client) as stubs,
        raw_stubs(server.address, tls.authority, stranger) as other,
    ):
        raw, strange = Raw(stubs, encoder), Raw(other, encoder)
        raw.blocks(raw.offer().plan)
        session = raw.offer().session  # now with a key: without one there is nothing to come back to
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, OverloadedError, "aligning 1 other clients"):
            strange.call(strange.header())
        with refused(grpc.StatusCode.FAILED_PRECONDITION, UnknownSessionError, "start again"):
            strange.call(strange.header(session=session, parts_received=1))
        server.wait_for("encrypted alignment expired")
        with refused(grpc.StatusCode.FAILED_PRECONDITION, UnknownSessionError, "start again"):
            raw.call(raw.header(session=session, parts_received=1))
        blocks = strange.blocks(strange.offer().plan)
        strange.call(strange.header(), *blocks, RECEIVED)
    (release,) = ledger(directory).all()
    assert release.identity == stranger.subject


def test_without_client_certificates_nothing_is_released(
    directory: Path, encoder: ViewEncoder, tls: Tls, tmp_path: Path
) -> None:
    files = ("--tls-cert", tls.silo.certificate, "--tls-key", tls.silo.key, "--listen", "127.0.0.1:0")
    with (
        serving("sealign-server", "serve", directory, *files, log=tmp_path / "log") as server,
        Client(silo=f"localhost:{server.port}", tls_ca=tls.authority.certificate, encoder=encoder) as client,
    ):
        assert client.silo().identity == "anonymous"
        with pytest.raises(NotPermittedError):
            client.align(PUBLIC, mode="encrypted")
    assert releases(directory) == 0


def test_a_map_that_cannot_be_written_leaves_the_earlier_one(
    client: Client, encoder: ViewEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.silo()  # its key is pinned
    (tmp_path / "maps").rename(tmp_path / "moved")
    (tmp_path / "maps").write_text("a file where a directory should be")
    with pytest.raises(StorageError, match="maps"):
        client.align(PUBLIC, mode="encrypted")
    assert client.describe().map is None


@pytest.fixture
def sealign(
    server: Server,
    encoder: ViewEncoder,
    tls: Tls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process; returns its exit status, output and errors."""
    monkeypatch.setattr("sealign_client.classification_tasks.load_encoder", lambda _: encoder)
    options = (*tls.client_options(server.port), "--encoder", "use", "--map-directory", tmp_path / "maps")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sealign", *map(str, (*arguments, *options))])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_command_line(sealign: Callable[..., tuple[int, str, str]], directory: Path, tmp_path: Path) -> None:
    public = tmp_path / "public.txt"
    public.write_text("\n".join(PUBLIC.texts) + "\n")
    status, out, err = sealign("align", "--mode", "encrypted", "--public", public)
    assert status == 0, err
    assert out.startswith(f"aligned over {TEXTS} texts: cross-validated explained variance 0.")
    assert releases(directory) == 1
    status, out, err = sealign("classify", "--json", *QUERIES[:3])
    assert (status, len(out.splitlines())) == (0, 3), err
    status, _, err = sealign("classify", "--placement", "silo", QUERIES[0])
    assert (status, "no map" in err) == (1, True)


@pytest.mark.parametrize("mode", ["plain", "encrypted"])
def test_public_files_that_cannot_be_used(
    sealign: Callable[..., tuple[int, str, str]],
    directory: Path,
    encoder: ViewEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    """One line of error, before anything is embedded, and no map."""
    monkeypatch.setattr(encoder, "encode", None)
    public, lines = tmp_path / "public.txt", list(PUBLIC.texts)
    for texts, message in (
        ([*lines, lines[3]], "line 2001 repeats line 4"),
        ([*lines[:7], " ", *lines[7:]], "line 8 is empty"),
        ([*lines[:-1], "one line differs"], "byte for byte"),
        (lines[::-1], "byte for byte"),
        (lines[:1], "at least two texts"),
    ):
        public.write_text("\n".join(texts) + "\n")
        status, _, err = sealign("align", "--mode", mode, "--public", public)
        (*_, error) = err.strip().splitlines()
        assert (status, error.startswith("error: "), message in error) == (2, True, True), err
    assert {file.suffix for file in (tmp_path / "maps").iterdir()} <= {".silokey"}
    assert not SiloStore(directory).space.map_records()
    assert releases(directory) == 0
