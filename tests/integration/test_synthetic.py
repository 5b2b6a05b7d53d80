"""Synthetic texts end to end: a silo's command makes them with a real language model, and a client aligns with them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sealign.encoders import EncoderSettings
from sealign.synthetic import privacy_loss
from sealign_client import Client
from sealign_server.ledger import Ledger, PrivateVotes
from sealign_server.store import SiloStore, audit_records
from tests.support.processes import command, serving
from tests.support.silo import Tls
from tests.support.small_lms import small_lm
from tests.support.smallsilo import NAMES, PUBLIC, SILO_DIMENSION, client_encoder, make_silo
from tests.support.views import ViewEncoder, installed_family

TASK, COUNT = "colours", 24
CANARY = "labelled 7 the vault opens with 4711 and a smile"


def loaded_silo_encoder(settings: EncoderSettings) -> ViewEncoder:
    """For the entry point of the family that the silo is created with."""
    return ViewEncoder("the silo's", SILO_DIMENSION)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_silo(tmp_path_factory.mktemp("synthetic") / "silo").directory
    document = json.loads((made / "silo.json").read_text())
    document["encoder"]["family"] = "siloviews"
    (made / "silo.json").write_text(json.dumps(document))
    return made


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return installed_family(tmp_path_factory.mktemp("family"), "siloviews", loaded_silo_encoder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a planted text that a third of its rows repeat."""
    file = tmp_path_factory.mktemp("data") / "train.tsv"
    texts = [CANARY if number % 3 == 0 else f"labelled {number} is of some colour" for number in range(300)]
    file.write_text("label\ttext\n" + "".join(f"red\t{text}\n" for text in texts))
    return file


@pytest.fixture(scope="module")
def printed(directory: Path, data: Path, path: str) -> str:
    """What one run says, with a real model."""
    options = ("--task", TASK, "--data", data, "--public", "general:400", "--count", COUNT, "--tokens", 16)
    model = f"transformers:{small_lm('one')}?device=cpu&threads=1"
    ran = command(
        "sealign-server", "synthesize", directory, *options, "--epsilon", 4, "--model", model, PYTHONPATH=path
    )
    assert ran.returncode == 0, ran.stderr
    assert CANARY not in ran.stdout + ran.stderr
    return ran.stdout


def test_shared_texts_are_written_ones_and_their_loss_is_counted(printed: str, directory: Path) -> None:
    store = SiloStore(directory)
    examples = store.tasks.examples(TASK)
    assert examples is not None
    assert examples.synthetic is not None
    assert 2 < len(examples.texts) <= COUNT
    assert not any("labelled" in text or "4711" in text for text in examples.texts)
    assert examples.embeddings.shape == (len(examples.texts), SILO_DIMENSION)
    (run,) = PrivateVotes(Ledger(store.ledger_path)).runs(TASK)
    assert (run.rounds, run.scale) == (examples.synthetic.rounds, examples.synthetic.scale)
    assert 3.8 < privacy_loss([run], 1e-5).epsilon == examples.synthetic.epsilon <= 4
    assert f"epsilon {examples.synthetic.epsilon:.2f} at delta 1e-05" in printed
    (record,) = [record for record in audit_records(store.audit_path) if record.kind == "synthesis"]
    assert record.facts["task"] == TASK
    assert record.facts["epsilon"] == 4
    shown = json.loads(command("sealign-server", "task", "show", directory, TASK).stdout)
    assert shown["synthetic"]["epsilon"] == examples.synthetic.epsilon
    assert shown["examples_to_share"] == len(examples.texts)


def test_a_client_aligns_with_synthetic_texts(printed: str, directory: Path, tls: Tls, tmp_path: Path) -> None:
    examples = SiloStore(directory).tasks.examples(TASK)
    assert examples is not None
    options = (*tls.serve_options, "--share-examples")
    shown: list[str] = []

    def accept(texts: Sequence[str]) -> bool:
        shown.extend(texts)
        return True

    with (
        serving("sealign-server", "serve", directory, *options, log=tmp_path / "log") as server,
        Client(tls.client_settings(server.port), encoder=client_encoder()) as client,
    ):
        card = client.align(PUBLIC, shared_examples=TASK, accept_examples=accept)
        assert tuple(shown) == (*examples.texts, *NAMES)
        assert card.rows == len(PUBLIC) + len(shown)
        assert np.isfinite(client.logits(client_encoder().encode(["a query"]))).all()


def test_a_second_run_adds_to_the_loss(printed: str, directory: Path, data: Path, path: str) -> None:
    options = ("--task", TASK, "--data", data, "--public", "general:400", "--count", COUNT, "--epsilon", 4)
    ran = command("sealign-server", "synthesize", directory, *options, PYTHONPATH=path)
    assert ran.returncode == 0, ran.stderr
    spent = re.search(r"all runs of this task: epsilon ([\d.]+)", ran.stdout)
    assert spent is not None
    assert 5.5 < float(spent[1]) < 8
    examples = SiloStore(directory).tasks.examples(TASK)
    assert examples is not None
    assert len(examples.texts) == COUNT
    assert examples.synthetic is not None
    assert examples.synthetic.model is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epsilon", 0), "out of bounds"),
        (("--epsilon", 1, "--delta", 0.009), "too large for"),
        (("--epsilon", 1, "--count", 129), "clients accept"),
        (("--epsilon", 1, "--task", "weather"), "no task"),
    ],
)
def test_what_cannot_be_made_is_refused_before_it_costs(
    directory: Path, data: Path, path: str, options: tuple[object, ...], message: str
) -> None:
    before = PrivateVotes(Ledger(SiloStore(directory).ledger_path)).runs(TASK)
    given = ("--task", TASK, "--data", data, *options)
    ran = command("sealign-server", "synthesize", directory, *given, PYTHONPATH=path)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert PrivateVotes(Ledger(SiloStore(directory).ledger_path)).runs(TASK) == before
