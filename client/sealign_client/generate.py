"""Text by two models: the client's reads, the silo's head says, under encryption, what comes next."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from sealign.alignment import AffineMap, PublicSet, require_enough_texts
from sealign.ckks import LARGEST_MODULUS_BITS, Cipher, PackingPlan, ProductShape, candidates, checked_rows
from sealign.errors import (
    DecryptionError,
    InvalidInputError,
    NoMapError,
    NoPlanError,
    NotFoundError,
    ReleaseRefusedError,
    SealignError,
    StalePlanError,
    UnavailableError,
    UnknownKeyError,
)
from sealign.generation.forecast import Compatibility, TokenCost, compare_tokenizers, token_cost
from sealign.generation.sampling import Sampler, Sampling, StopStrings
from sealign.generation.vocabulary import DEFAULT_PRECISION
from sealign.protocol import GenerationCard, MapCard, Placement, PublicSetCard, SiloCard, find_public_set
from sealign_client.encrypted_alignment import EncryptedAlignment, Transfer
from sealign_client.generation_connection import GenerationConnection
from sealign_client.keyring import KeyRing
from sealign_client.maps import ClientMaps
from sealign_client.results import Timing

if TYPE_CHECKING:
    from sealign.encoders.causal import CausalModel, CausalSession
    from sealign.encoders.tokenizer import CausalTokenizer

_ATTEMPTS = 6
_ALIGN_CHUNK = 1024
DEFAULT_TOKENS = 64

Run = Callable[..., Awaitable[Any]]


class Finish(str, enum.Enum):
    """Why a generation ended."""

    END = "end"
    """The silo's model ends the text here."""
    STOP = "stop"
    """A stop string came."""
    LENGTH = "length"
    """As many tokens as asked for, or as the silo allows."""
    WINDOW = "window"
    """The client's model can read no more."""


@dataclass(frozen=True)
class GeneratedToken:
    """One token of the silo's, as it came.

    Attributes:
        text: what can be shown now; empty while it may be the beginning of a stop string.
        id: of the token in the silo's vocabulary.
        log_probability: natural, under the silo's head for the mapped state, temperature 1, exact to the precision.
        alternatives: the likeliest tokens and their log-probabilities, as many as asked for.
        finish: of the last token: why it is the last.
    """

    text: str
    id: int
    log_probability: float
    alternatives: tuple[tuple[int, float], ...] = ()
    finish: Finish | None = None


@dataclass(frozen=True)
class Forecast:
    """What generation may give and will cost, before anything is paid for.

    Attributes:
        compatibility: of the two tokenizers.
        cost: of a token; by a typical head where there is no map yet.
        explained_variance: of the silo's states, by the map; None where there is no map yet.
        divergence: of what the head predicts from mapped states from what it predicts from the silo's own, nats a
            token; None where the map was not refined. A refined map is better by it and explains less of the states.
        model_seconds: the client's own model, for one more token.
    """

    compatibility: Compatibility
    cost: TokenCost
    explained_variance: float | None
    divergence: float | None
    model_seconds: float


@dataclass(frozen=True, eq=False)
class _Ready:
    """A task that can be asked, and what belongs to its card."""

    card: GenerationCard
    plan: PackingPlan
    own: AffineMap | None


class TextGenerator:
    """Generates with one causal model through one silo.

    Args:
        model: the client's.
        connection: to the silo.
        keys: the client's secret keys.
        maps: those that the client has learned under encryption.
        placement: where the map is applied; None: at the client if it has one, else at the silo.
        run: runs work in the client's worker thread.
        passphrase: protects what an encrypted alignment keeps.
        observe: told the `Timing` of every token.
    """

    def __init__(
        self,
        model: CausalModel,
        connection: GenerationConnection,
        keys: KeyRing,
        maps: ClientMaps,
        placement: Placement | None,
        run: Run,
        passphrase: str | None,
        observe: Callable[[Timing], None] | None,
    ) -> None:
        self.model = model
        self._connection = connection
        self._keys = keys
        self._maps = maps
        self._placement = placement
        self._run = run
        self._passphrase = passphrase
        self._observe = observe
        self._cards: dict[str, tuple[GenerationCard, AffineMap | None]] = {}
        self._tokenizers: dict[str, CausalTokenizer] = {}
        self._ciphers: dict[str, Cipher] = {}
        self._registered: set[bytes] = set()

    async def describe(self, *, refresh: bool = False) -> tuple[GenerationCard, ...]:
        """The silo's generation tasks, as this model can use them; asked once and remembered until ``refresh``."""
        if refresh or not self._cards:
            cards = await self._connection.generation_tasks(self.model.card)
            self._cards = {card.name: await self._placed_card(card) for card in cards}
        return tuple(card for card, _ in self._cards.values())

    async def task(self, name: str | None = None) -> GenerationCard:
        """The card of a task; without a name, of the only one.

        Raises:
            NotFoundError: no such task.
            InvalidInputError: no name, and not exactly one task.
        """
        cards = await self.describe()
        names = ", ".join(card.name for card in cards) or "none"
        if name is None and len(cards) != 1:
            raise InvalidInputError(f"name a generation task; the silo's are: {names}")
        for card in cards:
            if name in (None, card.name):
                return card
        raise NotFoundError(f"the silo has no generation task {name!r}; its generation tasks are: {names}")

    async def tokenizer(self, task: str | None = None) -> CausalTokenizer:
        """A task's tokenizer, fetched once.

        Raises:
            InvalidInputError: what came is not the tokenizer that the card names, or does not fit the vocabulary.
        """
        from sealign.encoders.tokenizer import CausalTokenizer

        card = await self.task(task)
        if card.tokenizer not in self._tokenizers:
            made = CausalTokenizer.from_bytes(await self._connection.tokenizer(card))
            if made.fingerprint != card.tokenizer:
                raise InvalidInputError(
                    f"the silo sent another tokenizer than the one that belongs to task {card.name}; it is damaged, or "
                    "was changed after the map was learned. Nothing was encrypted."
                )
            made.allowed(card.vocabulary)  # refuses a head of another model
            self._tokenizers[card.tokenizer] = made
        return self._tokenizers[card.tokenizer]

    async def align(
        self,
        texts: PublicSet,
        task: str | None = None,
        progress: Callable[[int], None] | None = None,
        *,
        encrypted: bool = False,
        transfer: Callable[[Transfer], None] | None = None,
    ) -> MapCard:
        """Learn the map for this model over public texts, which the silo has read too.

        In plain mode the silo sees this model's states of the public texts and keeps the map; in encrypted mode it
        sees ciphertexts, and this client keeps the map.

        Raises:
            NotFoundError: no such task, or the silo has not read these texts.
            UnavailableError: the silo went away; nothing was learned, an earlier map stays.
            NoPlanError: the map was learned, but the silo cannot serve the task behind it under any parameter set.
            InvalidInputError: a text that this model cannot read whole.
            ReleaseRefusedError: encrypted mode: the silo releases no more over this public set.
        """
        await self.describe(refresh=True)
        card = await self.task(task)
        held = find_public_set(card.public_sets, texts.digest, f"the silo's generation task {card.name}")
        if encrypted:
            require_enough_texts(held.rows, self.model.card.dimension, card.model.dimension)
        states = await self._states(card, texts, held, progress, encrypted)
        if encrypted:
            await self._align_encrypted(card, held, states, transfer)
        else:
            chunks = [states[start : start + _ALIGN_CHUNK] for start in range(0, len(states), _ALIGN_CHUNK)]
            await self._connection.align_states(card.name, self.model.card, held.digest, len(states), chunks)
        await self.describe(refresh=True)
        learned = (await self.task(card.name)).map
        self._require_servable(await self.task(card.name))
        if learned is None:
            raise NoMapError("the map was learned, but the silo does not serve it; its log says why")
        return learned

    async def generate(
        self,
        prompt: str,
        task: str | None = None,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        alternatives: int = 0,
    ) -> AsyncIterator[GeneratedToken]:
        """Continue a prompt, token by token.

        Args:
            prompt: the text so far; special tokens in it are read as the text they are.
            task: may be left out if there is one.
            max_tokens: most new tokens; by default 64, and never more than the silo allows.
            sampling: how tokens are chosen; by default the likeliest each time.
            alternatives: number of likeliest tokens told with each token.

        Raises:
            NotFoundError: no such task.
            NoMapError: this model was never aligned with the task.
            NoPlanError: the silo cannot serve the task to this model under any parameter set.
            DecryptionError: a text so unlike the public ones that logits leave the promised range; what was yielded
                stands.
            InvalidInputError: an empty prompt, or one beyond the model's window; nothing was sent.
            UnavailableError: the silo went away and did not come back in time; what was yielded stands.
        """
        sampling = sampling or Sampling()
        if max_tokens is not None and max_tokens < 1:
            raise InvalidInputError(f"at least one new token must be asked for, not {max_tokens}")
        ready = await self._ready(task)
        tokenizer = await self.tokenizer(ready.card.name)
        limit = min(max_tokens or DEFAULT_TOKENS, ready.card.max_tokens)
        stops = StopStrings(sampling.stop)
        seen = [int(number) for number in tokenizer.encode(prompt).ids]
        sampler = Sampler(sampling, tokenizer.allowed(ready.card.vocabulary), seen, alternatives)
        session = self.model.session()
        text, state = prompt, await self._run(session.advance, prompt)
        for count in range(1, limit + 1):
            ready, logits = await self._logits(ready, state)
            choice = await self._run(sampler.choose, logits)
            ended = choice.id in tokenizer.ends
            piece = "" if ended else tokenizer.pieces[choice.id]
            text += piece
            written = stops.add(piece)
            finish = Finish.END if ended else Finish.STOP if stops.stopped else None
            if finish is None and count == limit:
                finish = Finish.LENGTH
            if finish is None:
                state = await self._run(_advanced, self.model, session, text)
                finish = Finish.WINDOW if state is None else None
            if finish is not None and finish is not Finish.STOP:
                written += stops.rest()
            yield GeneratedToken(written, choice.id, choice.log_probability, choice.alternatives, finish)
            if finish is not None:
                return

    async def forecast(self, texts: Sequence[str], task: str | None = None) -> Forecast:
        """What a task may give and will cost, judged over some texts, which stay here.

        Raises:
            NotFoundError: no such task.
            NoPlanError: the silo cannot serve the task to this model under any parameter set.
            InvalidInputError: no texts, or one that cannot be read.
        """
        card = await self.task(task)
        self._require_servable(card)
        tokenizer = await self.tokenizer(card.name)
        compatibility = await self._run(compare_tokenizers, self.model.tokenizer, tokenizer, texts)
        return Forecast(
            compatibility,
            token_cost(card.plan or _typical_plan(self.model.card.dimension, card.vocabulary)),
            None if card.map is None else card.map.explained_variance,
            None if card.map is None else card.map.divergence,
            await self._run(_seconds_a_token, self.model, texts[0]),
        )

    async def _placed_card(self, card: GenerationCard) -> tuple[GenerationCard, AffineMap | None]:
        """The card as the map's placement makes it, with the client's own map where that is applied."""
        own = None
        if self._placement is not Placement.SILO:
            own = self._maps.find(_space(card), self.model.card.fingerprint)
        if own is not None:
            described = await self._connection.generation_tasks(self.model.card, own.public_set)
            found = next((other for other in described if other.name == card.name), card)
            return replace(found, map=MapCard.of(own), public_sets=card.public_sets), own
        if self._placement is Placement.CLIENT:
            card = replace(card, map=None, plan=None, unservable=False)
        return card, None

    async def _ready(self, task: str | None) -> _Ready:
        card = await self.task(task)
        if card.plan is None:
            await self.describe(refresh=True)  # somebody may have aligned meanwhile
            card = await self.task(task)
        self._require_servable(card)
        if card.plan is None:
            raise NoMapError(
                f"there is no map from {self.model.card.name} to generation task {card.name} yet: align first, with "
                f"client.align_generation(public_texts) or sealign align --generation {card.name} --public FILE"
            )
        own = self._cards[card.name][1]
        expected = self.model.card.dimension if own is None else own.weight.shape[1]
        if card.plan.dimension != expected:
            raise InvalidInputError("the silo's plan is for another dimension than this model's; align again")
        return _Ready(card, card.plan, own)

    def _require_servable(self, card: GenerationCard) -> None:
        if card.unservable:
            raise NoPlanError(
                f"the silo cannot serve generation task {card.name} to {self.model.card.name} under any parameter set: "
                "its logits are too large for the precision it asks for. The silo's operator can tell from its log "
                "what to change."
            )

    async def _logits(self, ready: _Ready, state: NDArray[np.float32]) -> tuple[_Ready, NDArray[np.float64]]:
        """Logits, shape (V,), of what follows a state; a break is bridged."""
        failures = 0
        while True:
            answer = await self._attempt(ready, state)
            if not isinstance(answer, SealignError):
                return ready, answer
            failures += 1
            if failures == _ATTEMPTS:
                raise answer
            if isinstance(answer, UnavailableError):
                await asyncio.sleep(0.25 * 2**failures)
            elif isinstance(answer, UnknownKeyError):
                self._registered.clear()  # the silo restarted, or forgot
            else:
                ready = await self._renewed(ready.card)

    async def _attempt(self, ready: _Ready, state: NDArray[np.float32]) -> NDArray[np.float64] | SealignError:
        """Logits, or an error after which it makes sense to ask again."""
        try:
            return await self._asked(ready, state)
        except (UnknownKeyError, StalePlanError, UnavailableError) as error:
            return error

    async def _renewed(self, before: GenerationCard) -> _Ready:
        await self.describe(refresh=True)
        ready = await self._ready(before.name)
        if (ready.card.tokenizer, ready.card.vocabulary) != (before.tokenizer, before.vocabulary):
            raise InvalidInputError("the silo has put another model behind the task; start again")
        return ready

    async def _asked(self, ready: _Ready, state: NDArray[np.float32]) -> NDArray[np.float64]:
        plan = ready.plan
        if plan.id not in self._ciphers:
            self._ciphers[plan.id] = Cipher(plan, self._keys.key(plan.parameters))
        cipher = self._ciphers[plan.id]
        key = cipher.key.public_key
        if key.id not in self._registered:
            await self._connection.register(key)
            self._registered.add(key.id)
        started = perf_counter()
        query = await self._run(cipher.encrypt, _within(state[None], ready.own, plan))
        encrypted = perf_counter()
        mapped_over = "" if ready.own is None else ready.own.public_set
        parts, decrypting, received, server = [], 0.0, 0, 0.0
        next_block = 0
        async for first, product, server in self._connection.next_token(  # noqa: B007
            ready.card, self.model.card.fingerprint, query, mapped_over
        ):
            if first != next_block:
                raise InvalidInputError("the silo sends parts of a reply out of order; it runs an incompatible version")
            began = perf_counter()
            try:
                parts.append(await self._run(cipher.decrypt_part, product, first))
            except DecryptionError as error:
                raise DecryptionError(
                    f"logits leave the ±{plan.range:g} that the silo promises for generation task {ready.card.name}: "
                    "the text is unlike the public texts that the map was learned over, or the reply was damaged. Go "
                    "on from another text, or align over public texts more like it."
                ) from error
            decrypting += perf_counter() - began
            received += product.byte_count
            next_block += len(product.ciphertexts)
        if next_block != plan.counts[2]:
            raise UnavailableError("the silo ended a reply before all of it had come; ask again")
        if self._observe is not None:
            self._observe(
                Timing(
                    encrypt=(encrypted - started) * 1e3,
                    server=server,
                    decrypt=decrypting * 1e3,
                    round_trip=(perf_counter() - started) * 1e3,
                    request_bytes=query.byte_count,
                    reply_bytes=received,
                )
            )
        logits: NDArray[np.float64] = np.concatenate(parts, axis=1)[0]
        return logits

    async def _states(
        self,
        card: GenerationCard,
        texts: PublicSet,
        held: PublicSetCard,
        progress: Callable[[int], None] | None,
        encrypted: bool,
    ) -> NDArray[np.float32]:
        """This model's states, one row for each of the silo's tokens that count."""
        unfinished = None
        if encrypted:
            unfinished = self._maps.unfinished(_space(card), self.model.card.fingerprint, held.digest, self._passphrase)
        if unfinished is not None and unfinished.embeddings is not None:
            return unfinished.embeddings
        if encrypted and held.releases_left == 0:  # before the expensive reading
            raise ReleaseRefusedError(
                f"the silo releases no cross-covariance over the public set {held.name} to this client any more. Use "
                "the map that was learned, or ask the silo's operator to raise max_releases."
            )
        tokenizer = await self.tokenizer(card.name)
        states: NDArray[np.float32] = await self._run(_read, self.model, tokenizer, texts, progress)
        if len(states) != held.rows:
            raise InvalidInputError(
                f"the silo has read {held.rows} tokens of the public set {held.name}, and this client {len(states)}: "
                "their versions of Sealign differ"
            )
        return states

    async def _align_encrypted(
        self,
        card: GenerationCard,
        held: PublicSetCard,
        states: NDArray[np.float32],
        transfer: Callable[[Transfer], None] | None,
    ) -> None:
        space, fingerprint = _space(card), self.model.card.fingerprint
        unfinished = self._maps.unfinished(space, fingerprint, held.digest, self._passphrase)
        alignment = EncryptedAlignment(
            self._connection,
            self._keys,
            self._run,
            self.model.card,
            space,
            held.digest,
            states,
            partial(self._maps.keep, space),
            unfinished,
            transfer,
            card.name,
        )
        await alignment.learn()


def sampling_of(**fields: Any) -> Sampling:
    """How tokens are chosen, from options.

    Raises:
        InvalidInputError: an option is out of bounds, by name.
    """
    try:
        return Sampling(**fields)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise InvalidInputError(f"tokens cannot be chosen so: {faults}") from None


def _typical_plan(dimension: int, vocabulary: int) -> PackingPlan:
    """The plan for a head of usual norms: those of SmolLM2 and Gemma 3 are of this size."""
    column, row = 5.0, 50.0
    shape = ProductShape(
        rows=1,
        dimension=dimension,
        outputs=vocabulary,
        frobenius_norm=column * vocabulary**0.5,
        range=column * row / 4,  # logits come nowhere near the bound
        row_norm=row,
        precision=DEFAULT_PRECISION,
        column_norm=column,
    )
    return candidates(shape, max_bytes=1 << 40, max_modulus_bits=LARGEST_MODULUS_BITS)[0]


def _seconds_a_token(model: CausalModel, text: str) -> float:
    """Time to read a text's last token, once all before it were read."""
    session = model.session()
    session.advance(text)
    started = perf_counter()
    session.advance(text)  # reads the last token again
    return perf_counter() - started


def _advanced(model: CausalModel, session: CausalSession, text: str) -> NDArray[np.float32] | None:
    """The state after a text that has grown by a token; None if it has outgrown the model's window."""
    tokens = len(model.tokenizer.prefix) + len(model.tokenizer.encode(text))
    return None if tokens > model.card.window else session.advance(text)


def _read(
    model: CausalModel,
    silo: CausalTokenizer,
    texts: PublicSet,
    progress: Callable[[int], None] | None,
) -> NDArray[np.float32]:
    from sealign.generation.states import client_rows

    rows = []
    for states in client_rows(model, silo, texts.texts):
        rows.append(states)
        if progress is not None:
            progress(1)
    return np.concatenate(rows)


def _within(row: NDArray[np.float32], own: AffineMap | None, plan: PackingPlan) -> NDArray[np.float64]:
    """A state, mapped if the client has the map, on the ball of the plan's row norm, which few rows leave."""
    placed = row.astype(np.float64) if own is None else own.apply(row)
    norms = np.linalg.norm(placed, axis=1, keepdims=True)
    return checked_rows(placed * (plan.row_norm / np.maximum(norms, plan.row_norm)), plan)


def _space(card: GenerationCard) -> SiloCard:
    """The states of a task as maps know them: a space that a map leads to."""
    return SiloCard(
        name=f"generation task {card.name}",
        tasks=(),
        public_sets=card.public_sets,
        map=None,
        encoder=card.model.fingerprint,
        dimension=card.model.dimension,
    )
