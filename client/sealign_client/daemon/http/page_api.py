"""The endpoints that the page needs beyond the public ones, all under /page/."""

from __future__ import annotations

import base64
from functools import partial

from starlette.responses import Response

from sealign.alignment import PublicSet
from sealign.protocol import MapCard
from sealign_client.daemon.http.alignments import Alignment, Report
from sealign_client.daemon.http.backend import AlignmentMode, Inspection
from sealign_client.daemon.http.exposure import Exposure
from sealign_client.daemon.http.operations import TEXT, Call, Operation, Service, json_response
from sealign_client.daemon.http.page_schemas import (
    AlignmentState,
    Bar,
    Found,
    GivenAway,
    InspectRequest,
    InspectResponse,
    Left,
    MapList,
    MapQuality,
    ScoreOnScale,
    Session,
    SiloRecord,
    StageTime,
    Stayed,
    TicketRequest,
)
from sealign_client.daemon.http.problems import HttpError
from sealign_client.daemon.http.public_texts import PUBLIC, given_public_set, search_public_set

_SAMPLE = 4096
_FAULTS = (404, 409, 429, 502, 503, 504)


async def open_session(call: Call) -> Response:
    """Answer ``POST /page/session``."""
    body: TicketRequest = call.body
    return json_response(Session(token=call.service.access.exchange(body.ticket)))


async def inspect(call: Call) -> Response:
    """Answer ``POST /page/inspect``."""
    body: InspectRequest = call.body
    service = call.service
    inspection = await service.backend.inspect(body.text, body.task)
    service.metrics.count_texts(1)
    exposure = service.public.exposure(inspection.embedding, inspection.query) if len(service.public) else None
    return json_response(_taken_apart(inspection, exposure, len(service.public)))


async def list_maps(call: Call) -> Response:
    """Answer ``GET /page/maps``."""
    return json_response(MapList(maps=[_quality(card) for card in await call.service.backend.maps()]))


async def start_alignment(call: Call) -> Response:
    """Answer ``POST /page/alignments``: align in the background over public texts."""
    public = given_public_set(call)
    given = call.query.get("mode", "plain")
    if given not in ("plain", "encrypted"):
        raise HttpError(422, "INVALID_INPUT", "mode must be plain or encrypted.")
    mode: AlignmentMode = "encrypted" if given == "encrypted" else "plain"
    return json_response(_state(call.service.alignments.start(partial(_align, call.service, public, mode))), 202)


async def show_alignment(call: Call) -> Response:
    """Answer ``GET /page/alignments/{id}``."""
    return json_response(_state(call.service.alignments.find(call.path["id"])))


async def cancel_alignment(call: Call) -> Response:
    """Answer ``DELETE /page/alignments/{id}``."""
    return json_response(_state(call.service.alignments.cancel(call.path["id"])))


async def _align(service: Service, public: PublicSet, mode: AlignmentMode, report: Report) -> MapCard:
    learned = await service.backend.align(public, mode, report)
    report("reading public texts for the comparison", 0.99)
    await search_public_set(service, public)
    return learned


def _taken_apart(inspection: Inspection, exposure: Exposure | None, public_texts: int) -> InspectResponse:
    prediction = inspection.prediction
    columns = zip(prediction.labels, prediction.probabilities, prediction.logits, strict=True)
    bars = [Bar(label=label, probability=share, logit=logit) for label, share, logit in columns]
    score = None
    if prediction.score is not None:
        name, value, threshold = prediction.score
        score = ScoreOnScale(name=name, value=value, threshold=threshold, in_distribution=prediction.in_distribution)
    return InspectResponse(
        task=prediction.task,
        label=prediction.label,
        calibrated=prediction.calibrated,
        bars=sorted(bars, key=lambda bar: -bar.logit),
        score=score,
        stages=[StageTime(name=stage.name, ms=round(stage.ms, 3)) for stage in inspection.stages],
        stayed=Stayed(
            embedding=[round(float(value), 5) for value in inspection.embedding],
            key_id=inspection.key_id,
            encoder=inspection.encoder,
        ),
        left=_left(inspection),
        record=SiloRecord(
            identity=inspection.identity,
            request=inspection.request_id,
            ms=round(inspection.silo_ms, 1),
            task=prediction.task,
            encoder=inspection.fingerprint,
            rows=1,
        ),
        given_away=None if exposure is None else _given_away(exposure, public_texts),
    )


def _left(inspection: Inspection) -> Left:
    return Left(
        parameters=inspection.parameters,
        query_bytes=len(inspection.query),
        query_sample=base64.b64encode(inspection.query[-_SAMPLE:]).decode(),
        reply_bytes=len(inspection.reply),
        reply_sample=base64.b64encode(inspection.reply[-_SAMPLE:]).decode(),
    )


def _given_away(exposure: Exposure, public_texts: int) -> GivenAway:
    lists = {
        name: [Found(text=near.text, cosine=near.cosine) for near in getattr(exposure, name)]
        for name in ("bare", "rotated", "encrypted")
    }
    return GivenAway(public_texts=public_texts, **lists)


def _quality(card: MapCard) -> MapQuality:
    return MapQuality.model_validate(card, from_attributes=True)


def _state(alignment: Alignment) -> AlignmentState:
    return AlignmentState(
        id=alignment.id,
        state=alignment.state,
        stage=alignment.stage,
        fraction=alignment.fraction,
        learned=None if alignment.learned is None else _quality(alignment.learned),
        problem=alignment.problem,
    )


_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"}}
_MODE = {
    "name": "mode",
    "in": "query",
    "schema": {"enum": ["plain", "encrypted"], "default": "plain"},
}

OPERATIONS = (
    Operation(
        "POST",
        "/page/session",
        "openSession",
        "page",
        "Exchange the ticket of the printed address for a token, once.",
        open_session,
        Session,
        body=TicketRequest,
        faults=(401,),
        secured=False,
    ),
    Operation(
        "POST",
        "/page/inspect",
        "inspect",
        "page",
        "Classify a text and take the call apart.",
        inspect,
        InspectResponse,
        body=InspectRequest,
        faults=_FAULTS,
        works=True,
    ),
    Operation(
        "GET",
        "/page/maps",
        "listMaps",
        "page",
        "List the encoder's maps.",
        list_maps,
        MapList,
        faults=_FAULTS,
        works=True,
    ),
    Operation(
        "POST",
        "/page/alignments",
        "startAlignment",
        "page",
        "Align over public texts, one a line or named, in the background.",
        start_alignment,
        AlignmentState,
        body_media=TEXT,
        body_required=False,
        status=202,
        parameters=(_MODE, PUBLIC),
        faults=(409, 429, 504),
        works=True,
    ),
    Operation(
        "GET",
        "/page/alignments/{id}",
        "showAlignment",
        "page",
        "Follow an alignment.",
        show_alignment,
        AlignmentState,
        parameters=(_ID,),
        faults=(404,),
    ),
    Operation(
        "DELETE",
        "/page/alignments/{id}",
        "cancelAlignment",
        "page",
        "Cancel an alignment.",
        cancel_alignment,
        AlignmentState,
        parameters=(_ID,),
        faults=(404,),
    ),
)
