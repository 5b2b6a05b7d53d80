"""Extraction of a head from a real silo, by identities with budgets: what rows give, and that they then end."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from sealign.protocol import RowKind
from sealign_server.access.extraction import extracted_cosine
from sealign_server.store import OPERATOR, SiloStore
from tests.support.processes import Server, serving
from tests.support.silo import ClearModel, Tls, align_plain, space_of
from tests.support.smallsilo import CLIENT_DIMENSION, PUBLIC, client_encoder, make_silo
from tests.support.wire import RawClient, raw_stubs

Floats = NDArray[np.float64]

BUDGETS = (6, 12, CLIENT_DIMENSION + 2, 3 * CLIENT_DIMENSION)


@pytest.fixture(scope="module")
def store(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> SiloStore:
    store, encoder = make_silo(tmp_path_factory.mktemp("extraction") / "silo"), client_encoder()
    rows = encoder.encode(PUBLIC.texts)
    for owner in (OPERATOR, tls.client.subject):  # the second for the clear model
        align_plain(space_of(store), owner, encoder.card, PUBLIC.digest, rows)
    return store


@pytest.fixture(scope="module")
def silo(store: SiloStore, tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    lines = ['default = "open"', "[tiers.open]", 'tasks = ["*"]', "unlimited = true"]
    for budget in BUDGETS:
        lines += [f"[tiers.rows{budget}]", 'tasks = ["colours"]', f"rows_lifetime = {budget}"]
    store.policy_path.write_text("\n".join([*lines, "[identities]"]))
    log = tmp_path_factory.mktemp("log") / "log"
    options = (*tls.serve_options, "--batch-rows", 1)
    with serving("sealign-server", "serve", store.directory, *options, log=log) as server:
        yield server


def answers(raw: RawClient, rows: Floats) -> Floats:
    """Outputs of rows, one query each, until the silo refuses."""
    found: list[Floats] = []
    for row in rows.astype(np.float32):
        call = raw.stubs.classification.Classify.future(raw.request(row[None]), timeout=60)
        if call.code() != grpc.StatusCode.OK:
            assert call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            break
        found.append(raw.outputs(call.result())[0])
    return np.array(found)


def copied(raw: RawClient, budget: int, directions: Floats, repeats: int) -> tuple[Floats, Floats]:
    """Weights and bias by least squares from rows along directions, each asked several times in a row and averaged."""
    distinct = np.concatenate([np.zeros((1, CLIENT_DIMENSION)), *[directions] * 3])
    asked = np.repeat(distinct, repeats, axis=0)
    got = answers(raw, asked[: budget + 1])
    assert len(got) == budget - 1  # one row has met the silo, and not one more is granted
    bias = got[:repeats].mean(axis=0)
    weights = np.linalg.lstsq(asked[repeats : len(got)], got[repeats:] - bias, rcond=None)[0]
    return weights, bias


@pytest.mark.parametrize("strategy", ["random", "averaging", "principal"])
def test_an_extractor_has_what_its_budget_gives(silo: Server, store: SiloStore, tls: Tls, strategy: str) -> None:
    """Along random directions; the same, each row three times; along directions in which its texts vary most."""
    clear = ClearModel.load(store.directory, tls.client, client_encoder().card.fingerprint, "colours")
    (known,) = store.space.map_records(client_encoder().card.fingerprint, OPERATOR)
    rows = RowKind(known.card.encoder, known.card.id)
    eye = np.eye(CLIENT_DIMENSION, dtype=np.float32)
    true = clear.outputs(eye) - clear.outputs(np.zeros_like(eye))
    texts = client_encoder().encode([f"a text {number}" for number in range(2000)])
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=eye.shape))[0]
    if strategy == "principal":
        directions = np.linalg.svd(texts - texts.mean(axis=0), full_matrices=False)[2]
    for budget in BUDGETS:
        thief = tls.authority.issue("thief", "thief")  # another each time: the authority adds a random name
        _grant(store, silo, thief.subject, budget)
        with raw_stubs(silo.address, tls.authority, thief) as stubs:
            raw = RawClient.meet(stubs, rows)
            weights, bias = copied(raw, budget, directions, 3 if strategy == "averaging" else 1)
        cosine = float((weights * true).sum() / np.linalg.norm(weights) / np.linalg.norm(true))
        same = float(np.mean((texts @ weights + bias).argmax(axis=1) == clear.outputs(texts).argmax(axis=1)))
        print(f"| {strategy} | {budget} of {CLIENT_DIMENSION + 1} | {cosine:.2f} | {100 * same:.0f} % |")
        assert cosine <= extracted_cosine(budget, CLIENT_DIMENSION) + 0.15
        if budget == max(BUDGETS):
            assert cosine > 0.95  # the attack works where the budget does not stop it


def _grant(store: SiloStore, silo: Server, subject: str, budget: int) -> None:
    reloads = len(silo.events("policy reloaded"))
    store.policy_path.write_text(f"{store.policy_path.read_text()}\n'{subject}' = \"rows{budget}\"")
    silo.wait_for("policy reloaded", reloads + 1)
