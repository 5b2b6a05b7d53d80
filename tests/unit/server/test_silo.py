"""The silo without sockets: maps and heads become encrypted products, and changes are picked up."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from structlog.testing import capture_logs

from sealign.ckks import Cipher, SecretKey, ZeroPool
from sealign.encoders import EncoderCard, EncoderSettings
from sealign.errors import NoMapError, NoPlanError, NotFoundError, OverloadedError, StalePlanError, UnknownMapError
from sealign.protocol import ClientMap, RowKind, TaskCard
from sealign_server.serving import Silo
from sealign_server.serving.heavy import HeavyWork
from sealign_server.settings import ServingOptions
from sealign_server.store import SiloStore, StoredTask
from sealign_server.store.generation import ModelHead
from tests.support.silo import align_plain, space_of
from tests.unit.server.conftest import (
    ALICE,
    BOB,
    CLIENT_DIMENSION,
    DIGEST,
    PUBLIC_ROWS,
    Rows,
    served,
    trained,
    unit_rows,
)


async def described(silo: Silo, rows: RowKind, identity: str = ALICE) -> TaskCard:
    (task,) = await silo.classification.describe(identity, rows)
    return task


async def test_without_a_map_there_are_tasks_but_no_plans(store: SiloStore, options: ServingOptions) -> None:
    silo = served(store, options)
    (task,) = silo.classification.cards()
    assert task.labels == ("blue", "green", "red")
    assert (task.plans, task.revision, task.calibrated) == ((), "", False)
    rows = RowKind("c" * 64, "0" * 32)
    with pytest.raises(NoMapError, match=r"align first \(sealign align --public FILE\).*noise \(dddddddddddd"):
        await silo.classification.describe(ALICE, rows)
    with pytest.raises(NoMapError, match="align first"):
        silo.classification.evaluator(ALICE, "colours", rows, "plan", "revision")


@pytest.mark.parametrize("count", [1, 5, 16])
async def test_products_equal_the_clear_composition(
    store: SiloStore, options: ServingOptions, aligned: RowKind, count: int
) -> None:
    silo = served(store, options)
    task = await described(silo, aligned)
    rows = unit_rows(7, count, CLIENT_DIMENSION)
    learned = store.space.load_map(ALICE, str(aligned.map))
    expected = store.tasks.load("colours").trained.head.logits(learned.apply(rows))
    plan = next(plan for plan in task.plans if plan.rows >= count)
    key = SecretKey.generate(plan.parameters)
    cipher = Cipher(plan, key)
    evaluator = silo.classification.evaluator(ALICE, "colours", aligned, plan.id, task.revision)
    reply = evaluator.evaluate(cipher.encrypt(rows), ZeroPool(key.public_key))
    assert np.abs(cipher.decrypt(reply, count) - expected).max() <= options.precision


async def test_plans_for_each_batch_size(store: SiloStore, options: ServingOptions, aligned: RowKind) -> None:
    task = await described(served(store, options), aligned)
    assert [plan.rows for plan in task.plans] == [1, 16]
    assert {plan.dimension for plan in task.plans} == {CLIENT_DIMENSION}
    assert {plan.outputs for plan in task.plans} == {3}


async def test_unknown_task_names_the_known_ones(store: SiloStore, options: ServingOptions, aligned: RowKind) -> None:
    for name in ("weather", "", "../colours", "x" * 1000):
        with pytest.raises(NotFoundError, match="tasks are: colours"):
            served(store, options).classification.evaluator(ALICE, name, aligned, "plan", "revision")


async def test_a_new_head_makes_old_plans_stale(store: SiloStore, options: ServingOptions, aligned: RowKind) -> None:
    tasks = served(store, options).classification
    (old,) = await tasks.describe(ALICE, aligned)
    asked = (ALICE, "colours", aligned, old.plans[0].id, old.revision)
    store.tasks.save("colours", StoredTask(trained(seed=9)))
    tasks.evaluator(*asked)  # until somebody asks, what was described is what is served
    (new,) = await tasks.describe(ALICE, aligned)
    assert new.revision != old.revision
    with pytest.raises(StalePlanError, match="describe it and encrypt again"):
        tasks.evaluator(*asked)
    tasks.evaluator(ALICE, "colours", aligned, new.plans[0].id, new.revision)


async def test_what_is_removed_stops_being_served_at_once(
    store: SiloStore, options: ServingOptions, aligned: RowKind
) -> None:
    tasks = served(store, options).classification
    (card,) = await tasks.describe(ALICE, aligned)
    asked = (ALICE, "colours", aligned, card.plans[0].id, card.revision)
    tasks.evaluator(*asked)
    store.space.remove_map(ALICE, str(aligned.map))
    with pytest.raises(NoMapError):
        tasks.evaluator(*asked)
    with pytest.raises(NoMapError):
        await tasks.describe(ALICE, aligned)
    store.tasks.remove("colours")
    with pytest.raises(NotFoundError, match="tasks are: none"):
        tasks.evaluator(*asked)
    assert tasks.cards() == []


async def test_what_another_process_learned_is_seen(
    store: SiloStore, options: ServingOptions, client_card: EncoderCard, public_rows: Rows
) -> None:
    first, second = served(store, options), served(SiloStore(store.directory), options)
    record = align_plain(space_of(store), ALICE, client_card, DIGEST, public_rows)
    rows = RowKind(client_card.fingerprint, record.card.id)
    task = await described(first, rows)
    asked = (ALICE, "colours", rows, task.plans[0].id, task.revision)
    # Without having described the task, as when a connection moves to another worker.
    with pytest.raises(StalePlanError):
        second.classification.evaluator(*asked)
    await second.classification.catch_up(ALICE, "colours", rows)
    second.classification.evaluator(*asked)


async def test_aligning_again_makes_another_map_and_leaves_the_first(
    store: SiloStore, options: ServingOptions, client_card: EncoderCard, aligned: RowKind
) -> None:
    silo = served(store, options)
    before = await described(silo, aligned)
    record = align_plain(space_of(store), ALICE, client_card, DIGEST, unit_rows(99, PUBLIC_ROWS, CLIENT_DIMENSION))
    after = await described(silo, RowKind(client_card.fingerprint, record.card.id))
    assert after.revision != before.revision
    assert (await described(silo, aligned)).revision == before.revision
    card = silo.space("embeddings").card(ALICE, client_card.fingerprint, CLIENT_DIMENSION)
    assert {each.id for each in card.maps} == {record.card.id, aligned.map}


async def test_a_precision_that_no_parameters_reach_leaves_the_task_without_plans(
    store: SiloStore, aligned: RowKind
) -> None:
    silo = served(store, ServingOptions(batch_rows=(1,), precision=1e-12))
    with capture_logs() as logs:
        assert (await described(silo, aligned)).plans == ()
    assert [event["event"] for event in logs] == ["task left out"]
    with pytest.raises(NoPlanError, match="the silo's log says why"):
        silo.classification.evaluator(ALICE, "colours", aligned, "plan", "revision")


async def test_a_damaged_task_takes_no_other_down(store: SiloStore, options: ServingOptions, aligned: RowKind) -> None:
    store.tasks.save("shapes", StoredTask(trained(seed=3)))
    version = store.directory / "tasks" / "shapes" / str(store.tasks.version("shapes"))
    (version / "head.safetensors").write_bytes(b"damage")
    tasks = served(store, options).classification
    assert [card.name for card in await tasks.describe(ALICE, aligned)] == ["colours"]


async def test_rows_that_a_client_has_mapped(store: SiloStore, options: ServingOptions) -> None:
    silo = served(store, options)
    rows = RowKind("c" * 64, ClientMap(DIGEST))
    task = await described(silo, rows)
    assert {plan.dimension for plan in task.plans} == {12}
    assert not task.calibrated
    # A head for them depends neither on the encoder nor on who asks.
    other = RowKind("f" * 64, ClientMap(DIGEST))
    assert await described(silo, other, BOB) == task
    with pytest.raises(UnknownMapError, match="register it again"):
        await described(silo, RowKind("c" * 64, ClientMap(DIGEST, "0" * 32)))
    with pytest.raises(NotFoundError):
        await described(silo, RowKind("c" * 64, ClientMap("e" * 64)))


async def test_no_client_goes_on_over_a_public_set_that_is_removed(store: SiloStore, options: ServingOptions) -> None:
    tasks, rows = served(store, options).classification, RowKind("c" * 64, ClientMap(DIGEST))
    (card,) = await tasks.describe(ALICE, rows)
    asked = (ALICE, "colours", rows, card.plans[0].id, card.revision)
    tasks.evaluator(*asked)
    store.space.remove_public_set(DIGEST)
    with pytest.raises(NotFoundError, match="does not hold the public set"):
        tasks.evaluator(*asked)


def test_a_generation_task_that_is_added_again_is_the_new_one(store: SiloStore, options: ServingOptions) -> None:
    tasks = served(store, options).generation
    card = EncoderCard(name="model", dimension=4, fingerprint="c" * 64, normalised=False)
    for seed in range(2):
        head = np.random.default_rng(seed).normal(size=(16, 4)).astype(np.float32)
        store.generation.create("prose", ModelHead(EncoderSettings(family="use"), card, head, None, b"{}"), "")
        assert np.array_equal(tasks.task("prose").head.weight, head)
        store.generation.remove("prose")
    with pytest.raises(NotFoundError, match="generation tasks are: none"):
        tasks.task("prose")


async def test_heavy_work_of_one_client_does_not_queue_before_anothers() -> None:
    heavy, order = HeavyWork(), []

    def work(name: str) -> None:
        time.sleep(0.02)
        order.append(name)

    flood = [asyncio.create_task(heavy.do("CN=flood", lambda n=n: work(f"flood {n}"))) for n in range(8)]  # type: ignore[misc]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="8 requests of this client wait"):
        await heavy.do("CN=flood", lambda: None)
    await heavy.do("CN=other", lambda: work("other"))
    await asyncio.gather(*flood)
    assert order.index("other") <= 2
    heavy.close()
