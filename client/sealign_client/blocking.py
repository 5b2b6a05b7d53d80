"""The SDK: use a silo's classifiers on texts that never leave this machine unencrypted.

with Client(silo="silo.example:7443", encoder="sentence-transformers/all-MiniLM-L6-v2") as client:
    client.align(PublicSet.from_file("public.txt"))
    for result in client.classify(texts, task="topics"):
        print(result.label, result.probability)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from threading import Thread
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import PublicSet
from sealign.encoders import Encoder
from sealign.generation.sampling import Sampling
from sealign.protocol import GenerationCard, MapCard, SiloCard
from sealign_client.adaptation import Adaptation
from sealign_client.client import AsyncClient, Progress
from sealign_client.encrypted_alignment import Transfer
from sealign_client.generation import Forecast, GeneratedToken
from sealign_client.results import Classification, Timing
from sealign_client.settings import AlignmentMode, ClientSettings

_T = TypeVar("_T")


class Client:
    """The synchronous client: the same as :class:`AsyncClient`, on an event loop of its own."""

    def __init__(
        self,
        settings: ClientSettings | None = None,
        *,
        encoder: Encoder | str | None = None,
        observe: Callable[[Timing], None] | None = None,
        **fields: Any,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="sealign-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._wait(self._make(settings, encoder, observe, fields))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; ephemeral keys are gone."""
        self._wait(self._client.close())
        self._stop()

    def describe(self, *, refresh: bool = False) -> SiloCard:
        """See :meth:`AsyncClient.describe`."""
        return self._wait(self._client.describe(refresh=refresh))

    def align(
        self,
        texts: PublicSet,
        progress: Progress | None = None,
        *,
        mode: AlignmentMode | str = AlignmentMode.PLAIN,
        few_shot: str | None = None,
        transfer: Callable[[Transfer], None] | None = None,
    ) -> MapCard:
        """See :meth:`AsyncClient.align`."""
        return self._wait(self._client.align(texts, progress, mode=mode, few_shot=few_shot, transfer=transfer))

    def adapt(
        self,
        texts: Sequence[str],
        progress: Progress | None = None,
        *,
        thresholds: bool = False,
        task: str | None = None,
    ) -> Adaptation:
        """See :meth:`AsyncClient.adapt`."""
        return self._wait(self._client.adapt(texts, progress, thresholds=thresholds, task=task))

    def classify(
        self, texts: Sequence[str], task: str | None = None, progress: Progress | None = None
    ) -> list[Classification]:
        """See :meth:`AsyncClient.classify`."""
        return self._wait(self._client.classify(texts, task, progress))

    def logits(
        self, rows: NDArray[np.float32], task: str | None = None, progress: Progress | None = None
    ) -> NDArray[np.float64]:
        """See :meth:`AsyncClient.logits`."""
        return self._wait(self._client.logits(rows, task, progress))

    def generate(
        self,
        prompt: str,
        task: str | None = None,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        alternatives: int = 0,
    ) -> Iterator[GeneratedToken]:
        """See :meth:`AsyncClient.generate`."""
        tokens = self._client.generate(prompt, task, max_tokens, sampling, alternatives)

        async def following() -> GeneratedToken | None:
            return await anext(tokens, None)

        async def end() -> None:
            await tokens.aclose()

        try:
            while (token := self._wait(following())) is not None:
                yield token
        finally:
            if not self._loop.is_closed():
                self._wait(end())

    def forecast(self, texts: Sequence[str], task: str | None = None) -> Forecast:
        """See :meth:`AsyncClient.forecast`."""
        return self._wait(self._client.forecast(texts, task))

    def align_generation(
        self,
        texts: PublicSet,
        task: str | None = None,
        progress: Progress | None = None,
        *,
        mode: AlignmentMode | str = AlignmentMode.PLAIN,
        transfer: Callable[[Transfer], None] | None = None,
    ) -> MapCard:
        """See :meth:`AsyncClient.align_generation`."""
        return self._wait(self._client.align_generation(texts, task, progress, mode=mode, transfer=transfer))

    def describe_generation(self) -> tuple[GenerationCard, ...]:
        """The silo's generation tasks, as the local causal model can use them now."""

        async def described() -> tuple[GenerationCard, ...]:
            return await (await self._client.generation()).describe(refresh=True)

        return self._wait(described())

    @property
    def encoder(self) -> Encoder:
        """The local encoder."""
        return self._client.encoder

    @staticmethod
    async def _make(
        settings: ClientSettings | None,
        encoder: Encoder | str | None,
        observe: Callable[[Timing], None] | None,
        fields: dict[str, Any],
    ) -> AsyncClient:
        return AsyncClient(settings, encoder=encoder, observe=observe, **fields)

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
