"""The synchronous SDK: use a silo's classifiers on texts that never leave this machine unencrypted.

with Client(silo="silo.example:7443", encoder="sentence-transformers/all-MiniLM-L6-v2") as client:
    client.align(PublicSet.from_file("public.txt"))
    for result in client.classify(texts, task="topics"):
        print(result.label, result.probability)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sealign_client.client import AsyncClient

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sealign.alignment import PublicSet
    from sealign.encoders import Encoder
    from sealign.generation.sampling import Sampling
    from sealign.protocol import MapCard, SiloCard
    from sealign_client.classification_tasks import Progress
    from sealign_client.inputs import Texts
    from sealign_client.local.recentring import Recentring
    from sealign_client.results import (
        CanaryReport,
        Classification,
        Description,
        Forecast,
        GeneratedToken,
        GenerationDescription,
        Timing,
    )
    from sealign_client.settings import ClientSettings

_T = TypeVar("_T")


class Client:
    __doc__ = (
        (AsyncClient.__doc__ or "")
        .replace("an async context", "a context")
        .replace("and blocks no event loop", "and is fast")
    )

    def __init__(
        self,
        settings: ClientSettings | None = None,
        *,
        encoder: Encoder | str | None = None,
        observe: Callable[[Timing], None] | None = None,
        **fields: Any,
    ) -> None:
        self._client = AsyncClient(settings, encoder=encoder, observe=observe, **fields)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="sealign-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; keys that are not stored are gone. Closing twice is harmless."""
        if self._loop.is_closed() or not self._thread.is_alive():  # closed, or in a forked process
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Close the connection, and end what other threads still wait for."""
        await self._client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    @property
    def encoder(self) -> Encoder:
        """The local encoder, loaded when it is first needed."""
        return self._wait(self._client.encoder())

    def silo(self) -> SiloCard:
        return self._wait(self._client.silo())

    def describe(self, *, refresh: bool = False) -> Description:
        return self._wait(self._client.describe(refresh=refresh))

    def describe_generation(self, *, refresh: bool = True) -> tuple[GenerationDescription, ...]:
        return self._wait(self._client.describe_generation(refresh=refresh))

    def canaries(self) -> tuple[CanaryReport, ...]:
        return self._wait(self._client.canaries())

    def align(self, texts: PublicSet, space: str | None = None, **options: Any) -> MapCard:
        return self._wait(self._client.align(texts, space, **options))

    def adapt(
        self,
        texts: Texts,
        progress: Progress | None = None,
        *,
        thresholds: bool = False,
        task: str | None = None,
    ) -> Recentring:
        return self._wait(self._client.adapt(texts, progress, thresholds=thresholds, task=task))

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, texts: str, task: str | None = ..., progress: Progress | None = ..., *, verify: bool | None = ...
    ) -> Classification: ...

    @overload
    def classify(
        self, texts: Texts, task: str | None = ..., progress: Progress | None = ..., *, verify: bool | None = ...
    ) -> list[Classification]: ...

    def classify(
        self,
        texts: str | Texts,
        task: str | None = None,
        progress: Progress | None = None,
        *,
        verify: bool | None = None,
    ) -> Classification | list[Classification]:
        return self._wait(self._client.classify(texts, task, progress, verify=verify))

    def classify_each(self, texts: Texts, task: str | None = None) -> Iterator[Classification]:
        return self._iterate(self._client.classify_each(texts, task))

    def logits(
        self,
        rows: NDArray[np.floating],
        task: str | None = None,
        progress: Progress | None = None,
        *,
        verify: bool | None = None,
    ) -> NDArray[np.float64]:
        return self._wait(self._client.logits(rows, task, progress, verify=verify))

    def generate(
        self,
        prompt: str,
        task: str | None = None,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        alternatives: int = 0,
        mixture: bool = False,
    ) -> Iterator[GeneratedToken]:
        return self._iterate(self._client.generate(prompt, task, max_tokens, sampling, alternatives, mixture))

    def forecast(self, texts: Texts, task: str | None = None) -> Forecast:
        return self._wait(self._client.forecast(texts, task))

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            self._client.session.require_usable()
        except BaseException:
            work.close()
            raise
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except CancelledError:
            self._client.session.require_usable()  # another thread has closed the client
            raise

    def _iterate(self, items: AsyncGenerator[_T, None]) -> Iterator[_T]:
        """Yield what an asynchronous generator does."""

        async def following() -> tuple[_T, ...]:
            async for item in items:
                return (item,)
            return ()

        async def end() -> None:
            await items.aclose()

        try:
            while found := self._wait(following()):
                yield found[0]
        finally:
            if not self._loop.is_closed() and self._thread.is_alive():
                asyncio.run_coroutine_threadsafe(end(), self._loop).result()


for _name, _method in vars(Client).items():
    if callable(_method) and not _name.startswith("_") and not _method.__doc__:
        _method.__doc__ = getattr(AsyncClient, _name).__doc__
