"""A silo with a generation task of a small language model, its client's model, and the clear computation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, PublicSet
from sealign.encoders import EncoderCard, EncoderSettings
from sealign.encoders.causal import CausalModel
from sealign.generation.sampling import Sampler, Sampling
from sealign.generation.states import client_rows
from sealign.generation.vocabulary import VocabularyHead
from sealign.protocol import AlignmentRequest, generation_space
from sealign.protocol.v1 import daemon_pb2 as pb
from sealign_client import Client, GeneratedToken
from sealign_server.ledger import Ledger
from sealign_server.serving.plain_alignment import PlainAlignment
from sealign_server.serving.space import Space
from sealign_server.settings import ServingOptions
from sealign_server.store import SiloDocument, SiloStore
from sealign_server.training.generation import add_public_states, keep_generation
from tests.support.processes import Server, serving
from tests.support.silo import Tls
from tests.support.small_lms import public_texts, small_lm

TASK = "reviews"
PRECISION = 1 / 16
_TEXTS = 160


def public_set(count: int = _TEXTS) -> PublicSet:
    return PublicSet(tuple(dict.fromkeys(public_texts(count))))


def model_name(name: str) -> str:
    """A small model as the command line takes it."""
    return f"{small_lm(name)}?device=cpu&threads=1"


def loaded(name: str) -> CausalModel:
    return CausalModel(EncoderSettings.parse(model_name(name)))


def empty_silo(directory: Path) -> SiloStore:
    """A silo without any task."""
    card = EncoderCard(name="none", dimension=1, fingerprint="0" * 64)
    return SiloStore.create(directory, SiloDocument(name="writer", encoder=EncoderSettings(), encoder_card=card))


def make_silo(directory: Path, model: str = "two", task: str = TASK) -> SiloStore:
    """A silo that has no classifier but a generation task, whose model has read the public texts."""
    silo = empty_silo(directory)
    causal = keep_generation(silo, task, EncoderSettings.parse(model_name(model)), "film reviews")
    add_public_states(silo.generation.space(task), causal, "openings", public_set(), lambda _: None)
    return silo


def align(silo: SiloStore, client: CausalModel, identity: str, task: str = TASK) -> None:
    """Learn the client's map as plain alignment does, in this process."""
    from sealign.encoders.tokenizer import CausalTokenizer

    name, public = generation_space(task), public_set()
    space = Space(name, silo.generation.space(task), Ledger(silo.ledger_path), ServingOptions())
    tokenizer = CausalTokenizer.from_bytes(silo.generation.tokenizer(task))
    rows = np.concatenate(list(client_rows(client, tokenizer, public.texts)))
    alignment = PlainAlignment(space, identity, AlignmentRequest(name, client.card, public.digest, len(rows)))
    alignment.add(rows)
    alignment.learn()


@dataclass(frozen=True)
class ClearGenerator:
    """The client's model, the silo's map and head, in the clear."""

    model: CausalModel
    map: AffineMap
    head: VocabularyHead

    @classmethod
    def load(cls, directory: Path, model: CausalModel, task: str = TASK) -> ClearGenerator:
        store = SiloStore(directory).generation
        space = store.space(task)
        record = space.map_records(model.card.fingerprint)[0]
        return cls(model, space.load_map(record.identity, record.card.id), store.load_head(task))

    def logits(self, state: NDArray[np.float32]) -> NDArray[np.float64]:
        """(V,) after a final hidden state, relative to their mean."""
        return self.row_logits(self.model.sent(state[None])[0])

    def row_logits(self, row: NDArray[np.float32]) -> NDArray[np.float64]:
        """The same for a row as the client's model sends it, (d,)."""
        logits: NDArray[np.float64] = self.head.logits(self.map.apply(row[None]))[0]
        return logits


def chosen_otherwise(
    clear: ClearGenerator,
    prompt: str,
    tokens: Sequence[GeneratedToken | pb.GeneratedToken],
    sampling: Sampling | None = None,
) -> int:
    """How many tokens are others than in the clear; greedy ones always for ties within the precision, or it fails."""
    tokenizer = loaded("two").tokenizer
    allowed = tokenizer.allowed(1024)
    sampler = Sampler(sampling or Sampling(), allowed, tokenizer.encode(prompt).ids.tolist())
    session, text, others = clear.model.session(), prompt, 0
    for token in tokens:
        logits = clear.logits(session.advance(text))
        likeliest = sampler._without_repeats(np.where(allowed, logits, -np.inf))
        assert (sampling or Sampling()).temperature or likeliest.max() - likeliest[token.id] <= 2 * PRECISION
        others += int(token.id != sampler.choose(logits).id)
        sampler._written[-1] = token.id  # what came is what goes on
        logits = np.where(allowed, logits, -np.inf)
        log_probability = logits[token.id] - np.log(np.exp(logits).sum())
        assert abs(token.log_probability - log_probability) <= 2 * PRECISION
        text += tokenizer.pieces[token.id]
    return others


@contextmanager
def own_silo(
    directory: Path, tls: Tls, log: Path, model: str, *options: object, port: int = 0
) -> Iterator[tuple[Server, Client]]:
    """A silo that a test may harm, and its client."""
    arguments = (*tls.serve_options, "--listen", f"127.0.0.1:{port}", *options)
    with (
        serving("sealign-server", "serve", directory, *arguments, log=log) as silo,
        Client(tls.client_settings(silo.port, model=model)) as client,
    ):
        yield silo, client
