"""The asynchronous SDK: the same as :class:`sealign_client.Client`, with ``await``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, PublicSet, require_enough_texts
from sealign.ckks import Cipher, EncryptedMatrix, PackingPlan, checked_rows
from sealign.encoders import Encoder, EncoderSettings, load_encoder
from sealign.errors import (
    InvalidInputError,
    NoMapError,
    NotFoundError,
    ReleaseRefusedError,
    StalePlanError,
    UnavailableError,
    UnknownKeyError,
    UnknownMapError,
)
from sealign.generation.sampling import Sampling
from sealign.protocol import MapCard, Placement, PublicSetCard, QueryRows, SiloCard, TaskCard, find_public_set
from sealign_client.adaptation import Adaptation, OwnThresholds, require_enough_for_thresholds
from sealign_client.encrypted_alignment import EncryptedAlignment, Transfer
from sealign_client.generation import Forecast, GeneratedToken, TextGenerator
from sealign_client.generation_connection import GenerationConnection
from sealign_client.keyring import KeyRing
from sealign_client.maps import ClientMaps
from sealign_client.results import Classification, Timing, classifications
from sealign_client.settings import AlignmentMode, ClientSettings, client_settings

Progress = Callable[[int], None]
_T = TypeVar("_T")

_ALIGN_CHUNK = 256
_ATTEMPTS = 4


class AsyncClient:
    """A client of one silo with one local encoder. Close it, or use it as an async context manager.

    Args:
        settings: see :class:`ClientSettings`; or its fields as keyword arguments. To generate text alone, name a
            causal ``model`` and no encoder.
        encoder: a loaded encoder, or the name of one; by default the one that the settings name.
        observe: told the :class:`Timing` of every request that carries one batch, or asks for one token.

    Raises:
        InvalidInputError, AuthenticationError: settings, certificates or an encoder that cannot work.
    """

    def __init__(
        self,
        settings: ClientSettings | None = None,
        *,
        encoder: Encoder | str | None = None,
        observe: Callable[[Timing], None] | None = None,
        **fields: Any,
    ) -> None:
        if settings is None:
            settings = client_settings(encoder=encoder if isinstance(encoder, str) else None, **fields)
        named = encoder if encoder is not None else settings.encoder
        self._encoder = None if named is None and settings.model is not None else _loaded(named)
        self._model = settings.model
        self._generator: TextGenerator | None = None
        self._passphrase = settings.key_passphrase.get_secret_value() if settings.key_passphrase else None
        self._keys = KeyRing(settings.key_directory, self._passphrase)
        self._connection = GenerationConnection(settings)
        self._observe = observe
        self._maps = ClientMaps(settings.map_directory)
        self._placement = settings.placement
        self._tell_map = settings.tell_map
        self._adaptation: Adaptation | None = None
        if settings.adaptation is not None:
            self._adaptation = Adaptation.load(settings.adaptation, self.encoder.card.fingerprint)
        self._card: SiloCard | None = None
        # These belong to the card, and are as it is described.
        self._own_map: AffineMap | None = None
        self._rows = QueryRows("")
        self._ciphers: dict[str, Cipher] = {}
        self._registered: set[bytes] = set()
        # One thread: models and SEAL objects are used by one caller at a time, and the loop stays free.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sealign")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; ephemeral keys are gone."""
        await self._connection.close()
        self._worker.shutdown()

    @property
    def classifies(self) -> bool:
        """Whether this client has an encoder."""
        return self._encoder is not None

    @property
    def generates(self) -> bool:
        """Whether this client has a causal model, loaded or not."""
        return self._model is not None

    @property
    def encoder(self) -> Encoder:
        """The local encoder.

        Raises:
            InvalidInputError: this client has only a causal model.
        """
        return self._encoder if self._encoder is not None else _loaded(None)

    async def generation(self) -> TextGenerator:
        """Generation with the local causal model, which is loaded when it is first needed.

        Raises:
            InvalidInputError: the settings name no model, or it cannot be loaded.
        """
        if self._generator is None:
            if self._model is None:
                raise InvalidInputError("name the local causal language model: model=…, --model or SEALIGN_MODEL")
            from sealign.encoders.causal import CausalModel  # needs torch

            model = await self._run(CausalModel, EncoderSettings.parse(self._model))
            self._generator = TextGenerator(
                model,
                self._connection,
                self._keys,
                self._maps,
                self._placement,
                self._run,
                self._passphrase,
                self._observe,
            )
        return self._generator

    async def generate(
        self,
        prompt: str,
        task: str | None = None,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        alternatives: int = 0,
    ) -> AsyncGenerator[GeneratedToken, None]:
        """Continue a prompt with the silo's language-model head; see :meth:`TextGenerator.generate`."""
        generator = await self.generation()
        async for token in generator.generate(prompt, task, max_tokens, sampling, alternatives):
            yield token

    async def forecast(self, texts: Sequence[str], task: str | None = None) -> Forecast:
        """What a generation task may give and will cost; see :meth:`TextGenerator.forecast`."""
        return await (await self.generation()).forecast(texts, task)

    async def align_generation(
        self,
        texts: PublicSet,
        task: str | None = None,
        progress: Progress | None = None,
        *,
        mode: AlignmentMode | str = AlignmentMode.PLAIN,
        transfer: Callable[[Transfer], None] | None = None,
    ) -> MapCard:
        """Learn the map from the local causal model's states to those of a generation task; as :meth:`align`."""
        generator = await self.generation()
        encrypted = AlignmentMode(mode) is AlignmentMode.ENCRYPTED
        return await generator.align(texts, task, progress, encrypted=encrypted, transfer=transfer)

    async def describe(self, *, refresh: bool = False) -> SiloCard:
        """What the silo offers; asked once and remembered until ``refresh``."""
        if self._card is None or refresh:
            encoder = self.encoder.card
            rows = QueryRows(encoder.fingerprint, recentred=self._adaptation is not None)
            card = await self._connection.describe(rows, encoder.dimension)
            own = None if self._placement is Placement.SILO else self._maps.find(card, encoder.fingerprint)
            if own is not None:
                rows = replace(rows, mapped_over=own.public_set, map_id=await self._told(own))
                card = await self._connection.describe(rows, encoder.dimension)
                card = replace(card, map=MapCard.of(own))
            elif self._placement is Placement.CLIENT:
                tasks = tuple(replace(task, plans=()) for task in card.tasks)
                card = replace(card, map=None, tasks=tasks)
            if self._adaptation is not None and self._adaptation.thresholds is not None:
                card = self._adaptation.thresholds.put_in(card)
            self._card, self._own_map, self._rows = card, own, rows
        return self._card

    async def adapt(
        self,
        texts: Sequence[str],
        progress: Progress | None = None,
        *,
        thresholds: bool = False,
        task: str | None = None,
    ) -> Adaptation:
        """Centre what is classified from now on as these texts are centred, without showing them to anybody.

        With ``thresholds``, also report as in distribution what scores no lower than 95 % of these texts do, which are
        classified for that: one encrypted query a text. Another map or head brings the silo's thresholds back, with a
        warning.

        Args:
            texts: at least 50 (100 for thresholds), without labels, like those to be classified and mixed as they will
                be; texts that are out of distribution among them lower the thresholds.
            progress: told how many texts were embedded, and, for thresholds, classified.
            thresholds: measure thresholds of the task's out-of-distribution scores.
            task: name of the silo's task; may be left out if there is only one.

        Raises:
            InvalidInputError: too few texts, or one that cannot be embedded.
            NotFoundError, NoMapError: thresholds: there is no such task, or no map for this encoder.
            UnavailableError: the silo went away; the texts' mean is used already, thresholds are the silo's.
        """
        if thresholds:  # before the expensive embedding
            require_enough_for_thresholds(len(texts))
            await self._ready_task(task)
        rows = await self._run(partial(self.encoder.encode, texts, progress=progress))
        adaptation = Adaptation.of(rows, self.encoder.card.fingerprint)
        self._adaptation, self._card = adaptation, None
        if thresholds:
            card, outputs = await self._outputs(rows, task, progress)
            used = (await self.describe()).map
            adaptation = replace(adaptation, thresholds=OwnThresholds.of(card, used, outputs))
            self._adaptation, self._card = adaptation, None
        return adaptation

    async def _told(self, own: AffineMap) -> str:
        """What the silo calls what it knows about a map of this client; empty if it is to know nothing."""
        if not self._tell_map:
            return ""
        if own.covariances is None:
            raise InvalidInputError(
                "there is nothing to tell the silo about this map, which an earlier version learned; align again, or "
                "leave tell_map out"
            )
        return await self._connection.register_map(own.public_set, own.covariances)

    async def align(
        self,
        texts: PublicSet,
        progress: Progress | None = None,
        *,
        mode: AlignmentMode | str = AlignmentMode.PLAIN,
        few_shot: str | None = None,
        transfer: Callable[[Transfer], None] | None = None,
    ) -> MapCard:
        """Learn the map for this encoder.

        In plain mode the silo sees this encoder's embeddings of the public texts and keeps the map. In encrypted
        mode it sees ciphertexts, and this client keeps the map and uses it from now on. With a map directory, an
        encrypted alignment that was interrupted, even by the end of the process, goes on when it is asked for again.

        Args:
            texts: the public set; the silo must hold the same.
            progress: told how many texts were embedded.
            mode: plain or encrypted.
            few_shot: a task whose unlabelled texts, as far as the silo releases them, join the public set.
            transfer: encrypted mode: told about ciphertexts sent and received.

        Raises:
            NotFoundError: the silo does not hold this public set, or no texts of the task.
            UnavailableError: the silo went away; nothing was learned, an earlier map stays.
            InvalidInputError: encrypted mode: fewer texts than four times the larger dimension.
            ReleaseRefusedError: the silo releases no texts; encrypted mode: no more over this public set.
        """
        encrypted = AlignmentMode(mode) is AlignmentMode.ENCRYPTED
        held = find_public_set((await self.describe(refresh=True)).public_sets, texts.digest)
        if few_shot is not None:
            texts = texts.joined(await self._connection.released_texts(few_shot, held.digest))
            held = find_public_set((await self.describe(refresh=True)).public_sets, texts.digest)
        if encrypted:
            return await self._align_encrypted(texts, held, progress, transfer)
        rows = await self._run(partial(self.encoder.encode, texts.texts, progress=progress))
        chunks = [rows[start : start + _ALIGN_CHUNK] for start in range(0, len(rows), _ALIGN_CHUNK)]
        learned = await self._connection.align(self.encoder.card, texts.digest, len(rows), chunks)
        await self.describe(refresh=True)
        return learned

    async def _align_encrypted(
        self,
        texts: PublicSet,
        held: PublicSetCard,
        progress: Progress | None,
        transfer: Callable[[Transfer], None] | None,
    ) -> MapCard:
        card, encoder = await self.describe(), self.encoder.card
        require_enough_texts(len(texts), encoder.dimension, card.dimension)
        unfinished = self._maps.unfinished(card, encoder.fingerprint, held.digest, self._passphrase)
        if unfinished is not None and unfinished.embeddings is not None:
            rows = unfinished.embeddings
        elif held.releases_left == 0:  # before the expensive embedding
            raise ReleaseRefusedError(
                f"the silo releases no cross-covariance over the public set {held.name} to this client any more: "
                "another encoder or an earlier run has used up what it allows. Use the map that was learned, or ask "
                "the silo's operator to raise max_releases."
            )
        else:
            rows = await self._run(partial(self.encoder.encode, texts.texts, progress=progress))
        alignment = EncryptedAlignment(
            self._connection,
            self._keys,
            self._run,
            encoder,
            card,
            texts.digest,
            rows,
            partial(self._maps.keep, card),
            unfinished,
            transfer,
        )
        own = await alignment.learn()
        await self.describe(refresh=True)
        return MapCard.of(own)

    async def classify(
        self, texts: Sequence[str], task: str | None = None, progress: Progress | None = None
    ) -> list[Classification]:
        """Classify texts through ciphertexts, results in their order.

        Args:
            texts: any number; large numbers go in batches.
            task: name of the silo's task; may be left out if there is only one.
            progress: told how many texts were embedded, which takes nearly all of the time.

        Raises:
            NotFoundError: no such task.
            NoMapError: this encoder was never aligned with the silo.
            InvalidInputError: a text that cannot be embedded (empty, too long), named by its index.
        """
        card = await self._ready_task(task)  # before the expensive embedding
        if not texts:
            return []
        rows = await self._run(partial(self.encoder.encode, texts, progress=progress))
        card, outputs = await self._outputs(rows, card.name)
        return classifications(card, outputs)

    async def logits(
        self, rows: NDArray[np.float32], task: str | None = None, progress: Progress | None = None
    ) -> NDArray[np.float64]:
        """Logits, shape (n, C), of embeddings made by this client's encoder, shape (n, d).

        Raises:
            InvalidInputError: wrong shape, or a row that is not finite or not normalised; nothing was sent.
        """
        card, outputs = await self._outputs(rows, task, progress)
        return card.layout.logits(outputs)

    async def _outputs(
        self, embeddings: NDArray[np.float32], task: str | None, progress: Progress | None = None
    ) -> tuple[TaskCard, NDArray[np.float64]]:
        """Outputs, (n, outputs), and the card of the head that gave them: all of one, whatever changes meanwhile."""
        card = await self._ready_task(task)
        kind, placed = self._rows, self._placed(embeddings, card.plans[0])
        done: list[NDArray[np.float64]] = []
        failures = 0
        while sum(map(len, done)) < len(embeddings):
            remaining = placed[sum(map(len, done)) :]
            plan = _cheapest(card.plans, len(remaining))
            if failures:
                remaining = remaining[: plan.rows]  # alone: a stream may hide why it ended
            try:
                await self._register(plan)
                async for part in self._answered(card, kind, plan, remaining):
                    done.append(part)
                    failures = 0
                    if progress is not None:
                        progress(len(part))
            except (UnknownKeyError, UnknownMapError, StalePlanError, UnavailableError) as error:
                failures += 1
                if failures == _ATTEMPTS:
                    raise
                if isinstance(error, UnavailableError):
                    await asyncio.sleep(0.25 * 2**failures)
                elif isinstance(error, UnknownKeyError):
                    self._registered.clear()  # the silo restarted, or forgot
                else:
                    await self.describe(refresh=True)
                    card = await self._ready_task(card.name)
                    kind, placed = self._rows, self._placed(embeddings, card.plans[0])
                    done.clear()
        return card, np.concatenate([np.empty((0, card.layout.outputs)), *done])

    def _placed(self, embeddings: NDArray[np.floating], plan: PackingPlan) -> NDArray[np.float64]:
        """What is to be encrypted under such plans: embeddings, or, with a map of the client's own, mapped ones.

        They are centred on the mean of the client's own texts, if it knows one.

        Mapped rows are projected to the ball of the plan's row norm. All centred embeddings of the silo lie in it, so
        projecting a prediction brings it nearer to them.

        Raises:
            InvalidInputError: wrong shape, values that are not finite, or embeddings that are too long.
        """
        own, adaptation = self._own_map, self._adaptation
        if own is None:
            if adaptation is None:
                return checked_rows(embeddings, plan)
            # Of norm one, as plain embeddings must be.
            return checked_rows(checked_rows(embeddings, replace(plan, row_norm=1.0)) - adaptation.mean, plan)
        mapped = own.apply(embeddings)
        if adaptation is not None:
            mapped -= own.apply(adaptation.mean[None])
        norms = np.linalg.norm(mapped, axis=1, keepdims=True)
        return checked_rows(mapped * (plan.row_norm / np.maximum(norms, plan.row_norm)), plan)

    async def task(self, name: str | None = None) -> TaskCard:
        """The card of a task; without a name, of the only one.

        Raises:
            NotFoundError: no such task.
            InvalidInputError: no name, and not exactly one task.
        """
        tasks = (await self.describe()).tasks
        names = ", ".join(card.name for card in tasks) or "none"
        if name is None:
            if len(tasks) != 1:
                raise InvalidInputError(f"name a task; the silo's tasks are: {names}")
            return tasks[0]
        for card in tasks:
            if card.name == name:
                return card
        raise NotFoundError(f"the silo has no task {name!r}; its tasks are: {names}")

    async def _ready_task(self, name: str | None) -> TaskCard:
        card = await self.task(name)
        if not card.plans:
            await self.describe(refresh=True)  # somebody may have aligned meanwhile
            card = await self.task(name)
        if not card.plans:
            raise NoMapError(
                f"the silo has no map for encoder {self.encoder.card.name} ({self.encoder.card.fingerprint[:12]}…) "
                "yet: align first, with client.align(public_texts) or sealign align --public FILE"
                if self._placement is not Placement.CLIENT
                else f"this client has no map of its own from {self.encoder.card.name} to the silo: align first, with "
                'client.align(public_texts, mode="encrypted") or sealign align --mode encrypted --public FILE'
            )
        expected = self.encoder.card.dimension if self._own_map is None else self._own_map.weight.shape[1]
        if card.plans[0].dimension != expected:
            raise InvalidInputError("the silo's plans are for another dimension than this encoder's; align again")
        return card

    async def _answered(
        self, card: TaskCard, kind: QueryRows, plan: PackingPlan, rows: NDArray[np.floating]
    ) -> AsyncIterator[NDArray[np.float64]]:
        """Outputs of rows, batch by batch, under one plan."""
        cipher = self._cipher(plan)
        batches = [rows[start : start + plan.rows] for start in range(0, len(rows), plan.rows)]
        if len(batches) == 1:
            started = perf_counter()
            query = await self._run(cipher.encrypt, batches[0])
            encrypted = perf_counter()
            product, server_ms = await self._connection.classify(card, kind, query)
            received = perf_counter()
            outputs = await self._run(cipher.decrypt, product, len(batches[0]))
            ended = perf_counter()
            if self._observe is not None:
                self._observe(
                    Timing(
                        encrypt=(encrypted - started) * 1e3,
                        server=server_ms,
                        decrypt=(ended - received) * 1e3,
                        round_trip=(ended - started) * 1e3,
                        request_bytes=query.byte_count,
                        reply_bytes=product.byte_count,
                    )
                )
            yield outputs
            return

        async def queries() -> AsyncIterator[EncryptedMatrix]:
            for batch in batches:
                yield await self._run(cipher.encrypt, batch)

        answers = self._connection.classify_stream(card, kind, queries())
        remaining: Iterator[NDArray[np.floating]] = iter(batches)
        async for product, _ in answers:
            count = len(next(remaining))
            yield await self._run(cipher.decrypt, product, count)

    async def _register(self, plan: PackingPlan) -> None:
        """Upload the public key that the plan needs, unless that was done."""
        key = self._cipher(plan).key.public_key
        if key.id not in self._registered:
            await self._connection.register(key)
            self._registered.add(key.id)

    def _cipher(self, plan: PackingPlan) -> Cipher:
        if plan.id not in self._ciphers:
            self._ciphers[plan.id] = Cipher(plan, self._keys.key(plan.parameters))
        return self._ciphers[plan.id]

    async def _run(self, work: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)


def _cheapest(plans: Sequence[PackingPlan], rows: int) -> PackingPlan:
    """The plan under which ``rows`` rows take the least predicted time."""

    def milliseconds(plan: PackingPlan) -> float:
        full, rest = divmod(rows, plan.rows)
        return full * plan.cost.milliseconds + (plan.cost_of(rest).milliseconds if rest else 0.0)

    return min(plans, key=milliseconds)


def _loaded(encoder: Encoder | str | None) -> Encoder:
    if encoder is None:
        raise InvalidInputError("name the local encoder: encoder=…, --encoder or SEALIGN_ENCODER")
    return load_encoder(EncoderSettings.parse(encoder)) if isinstance(encoder, str) else encoder
