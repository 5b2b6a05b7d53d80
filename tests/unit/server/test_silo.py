"""The silo without sockets: maps and heads become encrypted products, and changes are picked up."""

from __future__ import annotations

import numpy as np
import pytest

from sealign.alignment import RidgeStatistics, fit_map
from sealign.ckks import Cipher, SecretKey, ZeroPool
from sealign.encoders import EncoderCard
from sealign.errors import NoMapError, NotFoundError, StalePlanError
from sealign.protocol import QueryRows, TaskCard
from sealign_server.alignment import AlignmentSession
from sealign_server.settings import ServeSettings
from sealign_server.silo import Silo
from sealign_server.store import SiloStore, TaskDocument
from tests.unit.server.conftest import CLIENT_DIMENSION, DIGEST, PUBLIC_ROWS, Rows, trained, unit_rows


def described(silo: Silo, card: EncoderCard) -> TaskCard:
    (task,) = silo.describe(QueryRows(card.fingerprint)).tasks
    return task


def test_without_a_map_there_are_tasks_but_no_plans(
    store: SiloStore, settings: ServeSettings, client_card: EncoderCard
) -> None:
    silo = Silo(store, settings)
    card = silo.describe(QueryRows(client_card.fingerprint))
    assert (card.name, card.map) == ("small", None)
    (task,) = card.tasks
    assert task.labels == ("blue", "green", "red")
    assert (task.plans, task.revision) == ((), "")
    with pytest.raises(NoMapError, match=r"align first \(sealign align --public FILE\).*noise \(dddddddddddd"):
        silo.evaluator("colours", QueryRows(client_card.fingerprint), "plan", "revision")


@pytest.mark.parametrize("count", [1, 5, 16])
def test_products_equal_the_clear_composition(
    aligned: SiloStore, settings: ServeSettings, client_card: EncoderCard, count: int
) -> None:
    silo = Silo(aligned, settings)
    task = described(silo, client_card)
    rows = unit_rows(7, count, CLIENT_DIMENSION)
    head, learned = aligned.load_task("colours")[1].head, aligned.load_map(client_card.fingerprint)
    expected = head.logits(learned.apply(rows))
    plan = next(plan for plan in task.plans if plan.rows >= count)
    key = SecretKey.generate(plan.parameters)
    cipher = Cipher(plan, key)
    evaluator = silo.evaluator("colours", QueryRows(client_card.fingerprint), plan.id, task.revision)
    reply = evaluator.evaluate(cipher.encrypt(rows), ZeroPool(key.public_key))
    assert np.abs(cipher.decrypt(reply, count) - expected).max() <= settings.precision


def test_plans_for_each_batch_size(aligned: SiloStore, settings: ServeSettings, client_card: EncoderCard) -> None:
    task = described(Silo(aligned, settings), client_card)
    assert [plan.rows for plan in task.plans] == [1, 16]
    assert {plan.dimension for plan in task.plans} == {CLIENT_DIMENSION}
    assert {plan.outputs for plan in task.plans} == {3}


def test_unknown_task_names_the_known_ones(
    aligned: SiloStore, settings: ServeSettings, client_card: EncoderCard
) -> None:
    with pytest.raises(NotFoundError, match="tasks are: colours"):
        Silo(aligned, settings).evaluator("weather", QueryRows(client_card.fingerprint), "plan", "revision")


def test_a_new_head_makes_old_plans_stale(
    aligned: SiloStore, settings: ServeSettings, client_card: EncoderCard
) -> None:
    silo = Silo(aligned, settings)
    old = described(silo, client_card)
    asked = ("colours", QueryRows(client_card.fingerprint), old.plans[0].id, old.revision)
    aligned.save_task("colours", TaskDocument(), trained(seed=9))
    silo.evaluator(*asked)  # until somebody asks, what was described is what is served
    new = described(silo, client_card)
    assert new.revision != old.revision
    with pytest.raises(StalePlanError, match="describe it and encrypt again"):
        silo.evaluator(*asked)
    silo.evaluator("colours", QueryRows(client_card.fingerprint), new.plans[0].id, new.revision)


def test_what_another_process_learned_is_seen(
    store: SiloStore, settings: ServeSettings, client_card: EncoderCard, public_rows: Rows
) -> None:
    first, second = Silo(store, settings), Silo(SiloStore(store.directory), settings)
    session = first.alignment(client_card, DIGEST, PUBLIC_ROWS)
    session.add(public_rows.tobytes())
    session.learn()
    task = described(first, client_card)
    # Without having described the task, as when a connection moves to another worker.
    rows = QueryRows(client_card.fingerprint)
    second.catch_up(rows)
    second.evaluator("colours", rows, task.plans[0].id, task.revision)
    assert second.describe(rows).map == first.describe(rows).map


def test_aligning_again_with_other_rows_changes_the_revision(
    aligned: SiloStore, settings: ServeSettings, client_card: EncoderCard
) -> None:
    silo = Silo(aligned, settings)
    before = described(silo, client_card).revision
    session = AlignmentSession(aligned, client_card, DIGEST, PUBLIC_ROWS)
    session.add(unit_rows(99, PUBLIC_ROWS, CLIENT_DIMENSION).tobytes())
    session.learn()
    assert described(silo, client_card).revision != before


def test_a_damaged_map_costs_only_its_own_encoder(
    aligned: SiloStore, settings: ServeSettings, client_card: EncoderCard, capsys: pytest.CaptureFixture[str]
) -> None:
    aligned.map_path("e" * 64).write_bytes(b"damage")
    silo = Silo(aligned, settings)
    assert described(silo, client_card).plans
    with pytest.raises(NoMapError):
        silo.evaluator("colours", QueryRows("e" * 64), "plan", "revision")


def test_a_precision_that_no_parameters_reach_leaves_the_task_without_plans(
    aligned: SiloStore, settings: ServeSettings, client_card: EncoderCard
) -> None:
    silo = Silo(aligned, settings.model_copy(update={"precision": 1e-12}))
    assert described(silo, client_card).plans == ()
    with pytest.raises(StalePlanError, match="the silo's log says why"):
        silo.evaluator("colours", QueryRows(client_card.fingerprint), "plan", "revision")


def test_a_silo_that_keeps_its_own_heads_chooses_among_families_of_maps(
    store: SiloStore, settings: ServeSettings, client_card: EncoderCard, public_rows: Rows
) -> None:
    session = Silo(store, settings.model_copy(update={"fit_heads": False})).alignment(client_card, DIGEST, PUBLIC_ROWS)
    session.add(public_rows.tobytes())
    learned = session.learn()
    own = store.load_public_set(DIGEST).rows
    statistics = RidgeStatistics(public_rows.shape[1], own.shape[1])
    statistics.update(public_rows, own)
    expected = fit_map(statistics, source_fingerprint="a", target_fingerprint="b", public_set="c")
    assert learned.quality.family == expected.quality.family
    np.testing.assert_allclose(learned.weight, expected.weight)
    assert store.load_map(client_card.fingerprint).quality == learned.quality
