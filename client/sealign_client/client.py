"""The asynchronous SDK: the same as :class:`sealign_client.Client`, with ``await``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, overload

from sealign_client import inputs
from sealign_client.inputs import Texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sealign.alignment import PublicSet
    from sealign.encoders import Encoder
    from sealign.generation.sampling import Sampling
    from sealign.protocol import MapCard, SiloCard
    from sealign_client.classification_tasks import Progress
    from sealign_client.generate import Generator
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


class AsyncClient:
    """A client of one silo. Close it, or use it as an async context manager.

    Making one reads no file and blocks no event loop. Models and certificates are loaded in a worker thread when they
    are first needed.

    Args:
        settings: see :class:`ClientSettings`; or its fields as keyword arguments. To generate text alone, name a
            causal ``model`` and no encoder.
        encoder: a loaded encoder, or the name of one; by default the one that the settings name.
        observe: called with the :class:`Timing` of every request that carries one batch, or asks for one token.

    Raises:
        InvalidInputError: settings that cannot work, by name.
    """

    def __init__(
        self,
        settings: ClientSettings | None = None,
        *,
        encoder: Encoder | str | None = None,
        observe: Callable[[Timing], None] | None = None,
        **fields: Any,
    ) -> None:
        from sealign_client.parts import Parts  # here, so that importing this module stays fast

        settings = inputs.checked_settings(settings, encoder, fields)
        self.settings = settings
        self._parts = Parts(settings, encoder if encoder is not None else settings.encoder, observe)
        self.session = self._parts.session
        self.classifier = self._parts.classifier

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; keys that are not stored are gone. Closing twice is harmless."""
        await self._parts.close()

    @property
    def classifies(self) -> bool:
        """Whether this client has an encoder."""
        return self._parts.classifies

    @property
    def generates(self) -> bool:
        """Whether this client has a causal model, loaded or not."""
        return self._parts.generates

    @property
    def generator(self) -> Generator:
        """Generation with this client's causal model."""
        return self._parts.generator

    async def encoder(self) -> Encoder:
        """Return the local encoder, loaded when it is first needed."""
        return await self.classifier.encoder()

    async def silo(self) -> SiloCard:
        """Return what the silo is and offers by name, and what it knows about this client. Needs no model."""
        self.session.require_usable()
        return await self._parts.routes.silo(refresh=True)

    async def describe(self, *, refresh: bool = False) -> Description:
        """Return what the silo offers to this client's encoder; asked once until ``refresh``."""
        self.session.require_usable()
        return await self.classifier.describe(refresh=refresh)

    async def describe_generation(self, *, refresh: bool = True) -> tuple[GenerationDescription, ...]:
        """Return what the silo's generation tasks offer to this client's causal model now."""
        self.session.require_usable()
        return await self.generator.describe(refresh=refresh)

    async def canaries(self) -> tuple[CanaryReport, ...]:
        """Return how the silo has answered canaries, for each version of a task; see the setting ``canaries``."""
        self.session.require_usable()
        return tuple(await self.classifier.canaries.reports())

    async def align(self, texts: PublicSet, space: str | None = None, **options: Any) -> MapCard:
        """Learn the map from this client's embedding space to one of the silo's, and use it from now on.

        In plain mode the silo sees this client's embeddings of the public texts and retains the map. In encrypted mode
        it sees ciphertexts, and this client retains the map. The map's id is pinned: another is refused. An encrypted
        alignment that was interrupted, even by the end of the process, resumes when it is asked for again.

        Args:
            texts: the public set; the silo must hold the same.
            space: "generation/TASK" for the token states of a generation task; by default the encoder's embeddings.
            options: fields of :class:`AlignmentOptions`: ``mode``, ``register``, ``shared_examples``,
                ``accept_examples``, ``mixture_positions``, ``accept_poor_map``, ``progress``, ``transfer``.

        Raises:
            NotFoundError: the silo does not hold this public set, or no examples of the task.
            UnavailableError: the silo went away; nothing was learned, an earlier map stays.
            InvalidInputError: encrypted mode: fewer texts than four times the larger dimension; a map no better than
                chance; shared examples that were not accepted.
            ReleaseRefusedError: encrypted mode, and the silo releases no more over this public set.
            NoPlanError: the map was learned, but the silo can serve a generation task behind it under no parameter set.
        """
        self.session.require_usable()
        from sealign.protocol import EMBEDDINGS
        from sealign_client.options import AlignmentOptions

        wanted = AlignmentOptions.of(options)
        return await self._parts.align(inputs.checked_public_set(texts), space or EMBEDDINGS, wanted)

    async def adapt(
        self,
        texts: Texts,
        progress: Progress | None = None,
        *,
        thresholds: bool = False,
        task: str | None = None,
    ) -> Recentring:
        """Centre what is classified from now on as these texts are centred, without showing them to anybody.

        With ``thresholds``, texts are in distribution if they score no lower than 95 % of these do, which costs one
        encrypted query per text. Another map or head brings the silo's thresholds back, with a warning.

        Args:
            texts: at least 50 (100 for thresholds), without labels, like those to be classified and mixed as they will
                be. Texts that are out of distribution among them lower the thresholds.
            progress: told how many texts were embedded, and, for thresholds, classified.
            thresholds: measure thresholds of the task's out-of-distribution scores.
            task: name of the silo's task; may be left out if there is only one.

        Raises:
            InvalidInputError: too few texts, or one that cannot be embedded.
            NotFoundError, NoMapError: thresholds: there is no such task, or no map for this encoder.
            UnavailableError: the silo went away; the texts' mean is used already, thresholds are the silo's.
        """
        self.session.require_usable()
        return await self.classifier.adapt(inputs.checked_sequence(texts), progress, thresholds=thresholds, task=task)

    @overload
    async def classify(  # type: ignore[overload-overlap]
        self, texts: str, task: str | None = ..., progress: Progress | None = ..., *, verify: bool | None = ...
    ) -> Classification: ...

    @overload
    async def classify(
        self, texts: Texts, task: str | None = ..., progress: Progress | None = ..., *, verify: bool | None = ...
    ) -> list[Classification]: ...

    async def classify(
        self,
        texts: str | Texts,
        task: str | None = None,
        progress: Progress | None = None,
        *,
        verify: bool | None = None,
    ) -> Classification | list[Classification]:
        """Classify texts through ciphertexts.

        Args:
            texts: one text gives one result; a list, tuple, iterator, numpy array or pandas Series of texts gives a
                list, in order. So does an array of floats, embeddings of shape (n, d) that this client's encoder made.
            task: name of the silo's task; may be left out if there is only one.
            progress: told how many texts were embedded, which takes nearly all of the time.
            verify: hide check rows in batches, which catch a silo that returns another product than that of the rows
                with its weights; by default where they cost little.

        Raises:
            NotFoundError: no such task.
            NoMapError: this encoder was never aligned with the silo, or the silo dropped the map.
            InvalidInputError: something else than texts, or a text that cannot be embedded (empty, too long), named by
                its index.
            DecryptionError: a reply that is not the product of the encrypted rows; do not ask again.
            UnavailableError, OverloadedError: the silo did not answer within the timeout.
        """
        self.session.require_usable()
        if inputs.is_embeddings(texts):
            return await self.classifier.classify_rows(inputs.checked_embeddings(texts), task, progress, verify=verify)
        results = await self.classifier.classify(inputs.checked_sequence(texts), task, progress, verify=verify)
        return results[0] if isinstance(texts, str) else results

    async def classify_each(self, texts: Texts, task: str | None = None) -> AsyncGenerator[Classification, None]:
        """Classify any number of texts in constant memory, and yield results as they are made; see :meth:`classify`."""
        self.session.require_usable()
        async for result in self.classifier.classify_each(inputs.iterate_texts(texts), task):
            yield result

    async def logits(
        self,
        rows: NDArray[np.floating],
        task: str | None = None,
        progress: Progress | None = None,
        *,
        verify: bool | None = None,
    ) -> NDArray[np.float64]:
        """Return logits, shape (n, C), of embeddings made by this client's encoder, shape (n, d).

        Raises:
            InvalidInputError: wrong shape, or a row that is not finite or not normalised; nothing was sent.
        """
        self.session.require_usable()
        return await self.classifier.logits(inputs.checked_embeddings(rows), task, progress, verify=verify)

    async def generate(
        self,
        prompt: str,
        task: str | None = None,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        alternatives: int = 0,
        mixture: bool = False,
    ) -> AsyncGenerator[GeneratedToken, None]:
        """Continue a prompt with the silo's language-model head, token by token.

        Args:
            prompt: the text so far; special tokens in it are read as the text they are.
            task: may be left out if there is one.
            max_tokens: maximum number of new tokens; by default 64. The silo may impose a lower limit.
            sampling: how tokens are chosen; by default the likeliest each time.
            alternatives: number of likeliest tokens reported with each token.
            mixture: sample from the mixture fitted at alignment; each token then has ``silo_log_probability`` too.

        Raises:
            NotFoundError, NoMapError, NoPlanError: no such task; never aligned with it; no parameter set can serve it.
            DecryptionError: a text so unlike the public ones that logits leave the range; what was yielded stands.
            InvalidInputError: an empty prompt, or one beyond the model's window, or no mixture; nothing was sent.
            UnavailableError: the silo went away and did not come back in time; what was yielded stands.
        """
        self.session.require_usable()
        from sealign_client.generate import Generation

        wanted = Generation(prompt, task, max_tokens, sampling, alternatives, mixture)
        async for token in self.generator.generate(wanted):
            yield token

    async def forecast(self, texts: Texts, task: str | None = None) -> Forecast:
        """Return what a generation task may give and will cost, judged over some texts, which stay here.

        Raises:
            NotFoundError, NoPlanError: no such task; the silo can serve it under no parameter set.
            InvalidInputError: no texts, or one that cannot be read.
        """
        self.session.require_usable()
        from sealign_client.forecast import forecast

        return await forecast(self.generator, inputs.checked_sequence(texts), task)
