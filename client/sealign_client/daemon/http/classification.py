"""Classification over HTTP: as text-embeddings-inference and vLLM have it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from pydantic import TypeAdapter
from starlette.responses import Response

from sealign.encoders.settings import LongTexts
from sealign_client.daemon.http.backend import Prediction
from sealign_client.daemon.http.operations import JSON, Call, Operation, json_response
from sealign_client.daemon.http.schemas import (
    Classified,
    ClassifyRequest,
    ClassifyResponse,
    PredictRequest,
    Score,
    Usage,
)

_FAULTS = (404, 409, 429, 502, 503, 504)
_SCORES: TypeAdapter[list[Score] | list[list[Score]]] = TypeAdapter(list[Score] | list[list[Score]])


async def predict(call: Call) -> Response:
    """Answer ``POST /predict``: scores of every label, the largest first."""
    body: PredictRequest = call.body
    single = isinstance(body.inputs, str)
    texts = [body.inputs] if isinstance(body.inputs, str) else [text for (text,) in body.inputs]
    found = await _classified(call, texts, body.task, "truncate" if body.truncate else "refuse")
    scores = [_scores(prediction, raw=body.raw_scores) for prediction in found]
    return Response(_SCORES.dump_json(scores[0] if single else scores), media_type=JSON)


async def classify(call: Call) -> Response:
    """Answer ``POST /classify``: the likeliest label and all probabilities."""
    body: ClassifyRequest = call.body
    texts = [body.input] if isinstance(body.input, str) else body.input
    found = await _classified(call, texts, body.model, body.long_texts)
    tokens = sum(prediction.tokens for prediction in found)
    answer = ClassifyResponse(
        id=f"classify-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=found[0].task,
        data=[_entry(index, prediction) for index, prediction in enumerate(found)],
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
    )
    return json_response(answer)


async def _classified(
    call: Call, texts: Sequence[str], task: str | None, long_texts: LongTexts | None
) -> list[Prediction]:
    found = await call.service.backend.classify(texts, task, long_texts)
    call.service.metrics.count_texts(len(found))
    return found


def _scores(prediction: Prediction, *, raw: bool) -> list[Score]:
    values = prediction.logits if raw else prediction.probabilities
    scores = [Score(score=value, label=label) for value, label in zip(values, prediction.labels, strict=True)]
    return sorted(scores, key=lambda score: -score.score)


def _entry(index: int, prediction: Prediction) -> Classified:
    return Classified(
        index=index,
        label=prediction.label,
        probs=list(prediction.probabilities),
        num_classes=len(prediction.labels),
        in_distribution=prediction.in_distribution,
        calibrated=prediction.calibrated,
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/predict",
        name="predict",
        tag="classification",
        summary="Classify texts. The convention of text-embeddings-inference.",
        handler=predict,
        body=PredictRequest,
        answer=list[Score] | list[list[Score]],
        faults=_FAULTS,
        works=True,
    ),
    Operation(
        method="POST",
        path="/classify",
        name="classify",
        tag="classification",
        summary="Classify texts. The convention of vLLM.",
        handler=classify,
        body=ClassifyRequest,
        answer=ClassifyResponse,
        faults=_FAULTS,
        works=True,
    ),
)
