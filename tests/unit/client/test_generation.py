"""What a client of generation refuses before it encrypts anything, and what it shows of a forecast."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sealign.ckks import ProductShape, SecurityTable, candidates
from sealign.encoders import EncoderCard
from sealign.encoders.tokenizer import CausalTokenizer
from sealign.errors import InvalidInputError
from sealign.protocol import GenerationCard, Limits, SiloCard, SpaceCard
from sealign.protocol.conversions.generation import generation_from_wire, generation_to_wire
from sealign_client.generate import Generator, sampling_of
from sealign_client.local.maps import ClientMaps
from sealign_client.routes import RouteOptions, Routes

MODEL = EncoderCard(name="silo's", dimension=8, fingerprint="a" * 64, normalised=False)


def tokenizer(*words: str) -> CausalTokenizer:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=words[0]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    return CausalTokenizer(backend, (), frozenset())


OWN = tokenizer("<unk>", "▁a", "▁b", "a", "b")
CARD = GenerationCard(
    name="prose",
    description="",
    model=MODEL,
    vocabulary=8,
    tokenizer=sha256(OWN.to_bytes()).hexdigest(),
    tokenizer_bytes=len(OWN.to_bytes()),
    max_tokens=10,
    plan=None,
    revision="",
)


class FakeSession:
    """A session with a silo that says what a test wants."""

    def __init__(self, card: GenerationCard, tokenizer: CausalTokenizer) -> None:
        self._card = card
        self._tokenizer = tokenizer
        self.alignment = self.generation = self

    async def run(self, work: Any, *arguments: object) -> Any:
        return work(*arguments)

    async def retried(self, attempt: Any, renew: object = None) -> Any:
        return await attempt(self, 1.0)

    async def calls(self) -> FakeSession:
        return self

    async def describe(self) -> SiloCard:
        return SiloCard("silo", "0", "me", (), (), (self._card.name,), Limits(1))

    async def space(self, name: str, *_: object) -> SpaceCard:
        return SpaceCard(name, MODEL, ())

    async def task(self, *_: object) -> GenerationCard:
        return self._card

    async def tokenizer(self, _: GenerationCard) -> bytes:
        return self._tokenizer.to_bytes()


class FakeModel:
    card = MODEL


def generator(card: GenerationCard, sent: CausalTokenizer) -> Generator:
    session: Any = FakeSession(card, sent)
    made = Generator(Routes(session, ClientMaps(Path("no maps here")), RouteOptions()), None)
    made._model = cast(Any, FakeModel())
    return made


async def test_the_tokenizer_that_the_card_names_is_taken() -> None:
    assert (await generator(CARD, OWN).tokenizer()).fingerprint == CARD.tokenizer


async def test_another_tokenizer_than_the_card_names_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="another tokenizer than the one that belongs to task prose"):
        await generator(CARD, tokenizer("<unk>", "▁b", "▁a", "a", "b")).tokenizer()


async def test_a_head_with_fewer_outputs_than_the_tokenizer_has_tokens_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="4 outputs and the tokenizer 5 tokens"):
        await generator(replace(CARD, vocabulary=4), OWN).tokenizer()


def test_cards_cross_the_wire() -> None:
    plan = candidates(ProductShape(1, 8, 8, 1.0, 8.0, precision=1 / 8))[0]
    card = replace(CARD, plan=plan, revision="7")
    assert generation_from_wire(generation_to_wire(card), SecurityTable.CLASSICAL) == card


def test_cards_that_contradict_themselves_are_refused() -> None:
    plan = candidates(ProductShape(1, 8, 9, 1.0, 8.0, precision=1 / 8))[0]
    wrong = (
        replace(CARD, plan=plan),
        replace(CARD, max_tokens=0),
        replace(CARD, tokenizer="x"),
        replace(CARD, tokenizer_bytes=0),
        replace(CARD, vocabulary=1),
    )
    for card in wrong:
        with pytest.raises(InvalidInputError, match="do not fit its vocabulary"):
            generation_from_wire(generation_to_wire(card), SecurityTable.CLASSICAL)


def test_sampling_options_are_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="top_p: Input should be less than or equal to 1"):
        sampling_of(top_p=2)
