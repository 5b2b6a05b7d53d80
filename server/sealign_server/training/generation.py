"""Generation tasks: keep a causal model's head, read public texts, refine maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders import EncoderCard, EncoderSettings
from sealign.encoders.causal import CausalModel, OutputHead
from sealign.errors import InvalidInputError, NoMapError, NoPlanError
from sealign.generation.kl import HELD_OUT, Refinement, refine_by_divergence
from sealign.generation.states import row_counts, silo_rows
from sealign.generation.vocabulary import MappedVocabulary, plan_vocabulary
from sealign.protocol import PublicSetCard
from sealign_server.store import MapRecord, SiloStore, SpaceStore
from sealign_server.store.generation import ModelHead

Progress = Callable[[int], None]


def keep_generation(silo: SiloStore, task: str, settings: EncoderSettings, description: str) -> CausalModel:
    """Load the causal model, and keep its head as a task unless it is one already.

    Raises:
        InvalidInputError: the model cannot be loaded, is another than the task's, or is to send what only clients send.
        StorageError: a file could not be written.
    """
    if settings.states not in (None, "last"):
        raise InvalidInputError("A silo's head reads final hidden states. Leave out the model's option states.")
    model, store = CausalModel(settings), silo.generation
    if task in store.names():
        if store.document(task).encoder_card.fingerprint != model.card.fingerprint:
            raise InvalidInputError(f"generation task {task} is of another model; choose another name")
        return model
    card = EncoderCard.model_validate(model.card.model_dump(include=set(EncoderCard.model_fields)))
    head = model.head
    store.create(task, ModelHead(settings, card, head.weight, head.bias, model.tokenizer.to_bytes()), description)
    return model


def add_public_states(
    space: SpaceStore, model: CausalModel, name: str, texts: PublicSet, progress: Progress
) -> PublicSetCard:
    """Read public texts and keep the model's states, one row for each token that counts, for clients to align over.

    States go to disk text by text: memory does not grow with their number, and an interrupted run resumes.

    Args:
        space: the task's.
        model: the task's.
        name: of the set, for people.
        texts: read one after the other.
        progress: told how many texts were read.

    Raises:
        InvalidInputError: a text that the model cannot read.
        StorageError: a file could not be written.
    """
    tokenizer = model.tokenizer
    counts = row_counts(tokenizer, texts.texts, model.card.window - len(tokenizer.prefix))

    def read(done: int) -> Iterator[NDArray[np.float32]]:
        progress(done)
        for rows in silo_rows(model, texts.texts[done:]):
            yield rows.states
            progress(1)

    card = PublicSetCard(texts.digest, sum(counts), name)
    space.save_public_states(card, texts, counts, read)
    return card


def unservable_over(silo: SiloStore, task: str, public_set: str) -> NoPlanError | None:
    """Return why a task could not be served, with the settings that a silo has by default; None if it can.

    Judged by the silo's own states over the public set, before there is any map.

    Raises:
        NotFoundError: no such task, or it has not read the public set.
        StorageError: a file is damaged.
    """
    head = silo.generation.load_head(task)
    mapped = MappedVocabulary.over(head, silo.generation.space(task).load_public_set(public_set).rows)
    try:
        plan_vocabulary(task, mapped)
    except NoPlanError as error:
        return error
    return None


def refine_map(
    silo: SiloStore, task: str, start: str, *, epochs: int = 8, seed: int = 0, progress: Progress | None = None
) -> tuple[Refinement, MapRecord]:
    """Refine the map of a client by what the head predicts (`refine_by_divergence`), and keep it if it is better.

    The refined map is another map of the same identity, and the newest: a client that has pinned the one before goes
    on with that until it takes the new one.

    Args:
        silo: the silo.
        task: its generation task.
        start: beginning of the map's id, or of the fingerprint of the client's model.
        epochs, seed, progress: as for `refine_by_divergence`.

    Raises:
        NotFoundError: no such task.
        NoMapError: not exactly one map begins so, or its client's states were not kept (encrypted alignment).
        StorageError: a file is damaged or could not be written.
    """
    space, head = silo.generation.space(task), silo.generation.load_head(task)
    record = chosen_map(space.map_records(), start, task)
    learned = space.load_map(record.identity, record.card.id)
    rows = space.map_rows(record.identity, learned)
    if rows is None:
        raise NoMapError("the client's states were not kept; let the client align again")
    refined = refine_by_divergence(
        learned,
        OutputHead(head.weight, head.bias.astype(np.float32)),
        rows,
        space.load_public_set(learned.public_set).rows,
        epochs=epochs,
        seed=seed,
        progress=progress,
    )
    if refined.best:
        record = space.save_map(record.identity, refined.map, record.row_norm, np.asarray(rows))
    return refined, record


def tokens_refined(silo: SiloStore, task: str, start: str) -> int:
    """Return how many public tokens a pass of :func:`refine_map` reads.

    Raises:
        NotFoundError, NoMapError, StorageError: as there.
    """
    space = silo.generation.space(task)
    record = chosen_map(space.map_records(), start, task)
    rows = space.public_set(record.card.public_set).rows
    return rows - int(HELD_OUT * rows)


def chosen_map(records: list[MapRecord], start: str, where: str) -> MapRecord:
    """Return the newest map of the one client whose map id, or encoder's fingerprint, begins so.

    Raises:
        NoMapError: there is none, or there are several.
    """
    found = [record for record in records if record.card.id.startswith(start) or record.card.encoder.startswith(start)]
    clients = {(record.identity, record.card.encoder) for record in found}
    if len(clients) != 1:
        known = ", ".join(f"{r.card.id} ({r.identity}, encoder {r.card.encoder[:12]}…)" for r in records) or "none"
        raise NoMapError(f"{len(clients)} clients' maps begin with {start[:64]!r}; {where} has maps: {known}")
    return found[0]
