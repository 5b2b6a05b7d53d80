"""Offline work with the silo's own causal model: keep its head, read public texts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sealign.alignment import PublicSet
from sealign.encoders import EncoderCard, EncoderSettings
from sealign.encoders.causal import CausalModel, OutputHead
from sealign.errors import InvalidInputError, NoMapError, NoPlanError
from sealign.files import save_arrays
from sealign.generation.kl import Refinement, refine_by_divergence
from sealign.generation.states import silo_rows
from sealign.generation.vocabulary import MappedVocabulary, plan_vocabulary
from sealign.protocol import PublicSetCard
from sealign_server.generation_store import GenerationStore, following_path, load_client_states
from sealign_server.store import PublicEmbeddings, SiloDocument, SiloStore

Progress = Callable[[int], None]


def keep_generation(
    silo: SiloStore, task: str, settings: EncoderSettings, description: str
) -> tuple[CausalModel, SiloStore]:
    """The causal model, and the store of its states; its head is kept as a task unless it is already.

    Raises:
        InvalidInputError: the model cannot be loaded, or is another than the task's.
        StorageError: a file could not be written.
    """
    model, store = CausalModel(settings), GenerationStore(silo)
    if task in store.names():
        states = store.states(task)
        if states.document.encoder_card.fingerprint != model.card.fingerprint:
            raise InvalidInputError(f"generation task {task} is of another model; choose another name")
        return model, states
    card = EncoderCard.model_validate(model.card.model_dump(include=set(EncoderCard.model_fields)))
    document = SiloDocument(name=task, encoder=settings, encoder_card=card)
    head = model.head
    tokenizer = model.tokenizer.to_bytes()
    return model, store.create(task, document, description, head.weight, head.bias, tokenizer)


def add_public_states(
    states: SiloStore, model: CausalModel, name: str, texts: PublicSet, progress: Progress
) -> PublicSetCard:
    """Read public texts and keep the model's states, one row for each token that counts, for clients to align over.

    Args:
        states: the task's.
        model: the task's.
        name: of the set, for people.
        texts: read one after the other.
        progress: told how many texts were read.

    Raises:
        InvalidInputError: a text that the model cannot read.
        StorageError: a file could not be written.
    """
    rows, following = [], []
    for read in silo_rows(model, texts.texts):
        rows.append(read.states)
        following.append(read.following)
        progress(1)
    stacked = np.concatenate(rows)
    card = PublicSetCard(texts.digest, len(stacked), name)
    save_arrays(following_path(states, texts.digest), {"following": np.concatenate(following)}, {}, mode=0o600)
    states.save_public_set(PublicEmbeddings(card, stacked), texts)
    return card


def unservable_over(silo: SiloStore, task: str, public_set: str) -> NoPlanError | None:
    """Why a task could not be served, with the settings that a silo has by default; None if it can.

    Judged by the silo's own states over the public set, before there is any map.

    Raises:
        NotFoundError: no such task, or it has not read the public set.
        StorageError: a file is damaged.
    """
    store = GenerationStore(silo)
    _, head = store.load(task)
    mapped = MappedVocabulary.over(head, store.states(task).load_public_set(public_set).rows)
    try:
        plan_vocabulary(task, mapped)
    except NoPlanError as error:
        return error
    return None


def refine_map(
    silo: SiloStore, task: str, model: str, *, epochs: int = 8, seed: int = 0, progress: Progress | None = None
) -> Refinement:
    """Refine the map of a client's model by what the head predicts (`refine_by_divergence`); kept if it is better.

    Args:
        silo: the silo.
        task: its generation task.
        model: fingerprint of the client's model, or the beginning of it.
        epochs, seed, progress: as for `refine_by_divergence`.

    Raises:
        NotFoundError: no such task.
        NoMapError: not exactly one map begins so, or its client's states were not kept (encrypted alignment).
        StorageError: a file is damaged or could not be written.
    """
    store = GenerationStore(silo)
    states, (_, head) = store.states(task), store.load(task)
    found = [fingerprint for fingerprint in states.map_fingerprints() if fingerprint.startswith(model)]
    if len(found) != 1:
        known = ", ".join(fingerprint[:12] for fingerprint in states.map_fingerprints()) or "none"
        raise NoMapError(f"{len(found)} maps begin with {model[:64]!r}; task {task} has maps of the models: {known}")
    learned = states.load_map(found[0])
    rows = load_client_states(states, learned)
    if rows is None:
        raise NoMapError("the client's states were not kept, or belong to another map; let the client align again")
    refined = refine_by_divergence(
        learned,
        OutputHead(head.weight, head.bias.astype(np.float32)),
        rows.astype(np.float32),
        states.load_public_set(learned.public_set).rows,
        epochs=epochs,
        seed=seed,
        progress=progress,
    )
    if refined.best:
        refined.map.save(states.map_path(found[0]))
    return refined
