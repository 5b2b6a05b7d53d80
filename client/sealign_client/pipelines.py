"""A call like that of a text-classification pipeline of transformers, in front of a silo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from sealign.errors import InvalidInputError
from sealign_client.blocking import Client

if TYPE_CHECKING:
    from sealign_client.results import Classification

Score: TypeAlias = dict[str, Any]
"""A label and its score: ``{"label": str, "score": float}``."""

_KIND = "text-classification"
_FUNCTIONS = ("softmax", "none")
_UNSET: Any = object()


class TextClassificationPipeline:
    """Classifies texts and returns labels and scores in the shapes that transformers has for them.

    Close it, or use it as a context manager.

    Args:
        client: of a silo; closed with the pipeline.
        task: name of the silo's task; may be left out if there is only one.
    """

    def __init__(self, client: Client, task: str | None = None) -> None:
        self.client = client
        self.task = task

    def __enter__(self) -> TextClassificationPipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the client. Closing twice is harmless."""
        self.client.close()

    def __call__(self, inputs: Any, *, top_k: int | None = _UNSET, function_to_apply: str | None = None) -> Any:
        """Classify texts.

        Args:
            inputs: one text, or a list, tuple, numpy array or pandas Series of texts: all results are returned.
                An iterator of texts: results are yielded as they are made, in constant memory.
            top_k: number of likeliest labels for each text; None for all. Without it, the likeliest label alone.
            function_to_apply: "none" gives logits as scores. By default a score is the label's calibrated probability,
                or, if the silo could not calibrate it for this client's map, the softmax of the logits.

        Returns:
            For one text a list of scores. For several, a list with one score for each text, or with ``top_k`` a list of
            lists. The largest score comes first.

        Raises:
            InvalidInputError: something else than texts; another function; a ``top_k`` that is not positive.
            SealignError: as `Client.classify`.
        """
        if top_k is not _UNSET and top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise InvalidInputError(f"top_k is a positive number of labels, or None for all, not {top_k!r}.")
        if function_to_apply not in (None, *_FUNCTIONS):
            raise InvalidInputError(f"There is no function_to_apply {function_to_apply!r}. There are: softmax, none.")
        raw = function_to_apply == "none"
        if isinstance(inputs, Iterator):
            return (_shaped(result, top_k, raw) for result in self.client.classify_each(inputs, self.task))
        if isinstance(inputs, str):
            scores = _scores(self.client.classify(inputs, self.task), raw)
            return scores[: 1 if top_k is _UNSET else top_k]
        return [_shaped(result, top_k, raw) for result in self.client.classify(inputs, self.task)]


def pipeline(
    kind: str = _KIND, *, client: Client | None = None, task: str | None = None, **settings: Any
) -> TextClassificationPipeline:
    """Return a pipeline that classifies texts through a silo, as ``transformers.pipeline`` does with a local model.

    Args:
        kind: "text-classification", or its other name "sentiment-analysis".
        client: used, and closed with the pipeline; by default one is made of the settings.
        task: name of the silo's task; may be left out if there is only one.
        settings: fields of :class:`ClientSettings`, such as ``silo`` and ``encoder``.

    Raises:
        InvalidInputError: another kind, or settings that cannot work.
    """
    if kind not in (_KIND, "sentiment-analysis"):
        raise InvalidInputError(f"There is no pipeline {kind!r}. There is {_KIND!r}.")
    if client is not None and settings:
        raise InvalidInputError(f"Give a client or settings, not both: {', '.join(sorted(settings))}.")
    return TextClassificationPipeline(client or Client(**settings), task)


def _shaped(result: Classification, top_k: int | None, raw: bool) -> Any:
    scores = _scores(result, raw)
    return scores[0] if top_k is _UNSET else scores[:top_k]


def _scores(result: Classification, raw: bool) -> list[Score]:
    """Return the scores of all labels, the largest first."""
    values: tuple[float, ...]
    if raw:
        values = result.logits
    elif result.probabilities is not None:
        values = tuple(result.probabilities[label] for label in result.labels)
    else:
        import numpy as np

        from sealign.heads import softmax

        values = tuple(map(float, softmax(np.array([result.logits]))[0]))
    pairs = sorted(zip(values, result.labels, strict=True), key=lambda pair: -pair[0])
    return [{"label": label, "score": value} for value, label in pairs]
