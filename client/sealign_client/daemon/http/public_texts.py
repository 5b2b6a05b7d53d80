"""Public texts that the page gives: a file, or the general set by name."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from starlette.responses import Response

from sealign.alignment import PublicSet
from sealign.lines import checked_lines
from sealign.protocol import PublicSetCard
from sealign.shipped import GENERAL, general_texts
from sealign_client.daemon.http.exposure import MOST_TEXTS
from sealign_client.daemon.http.operations import TEXT, Call, Operation, Service, json_response
from sealign_client.daemon.http.page_schemas import NamedPublicSet, PublicSetList, PublicTextsState
from sealign_client.daemon.http.problems import HttpError

_NAME = re.compile(rf"{GENERAL}(:[0-9]{{1,9}})?")
PUBLIC = {
    "name": "public",
    "in": "query",
    "description": "In place of a body: the general set that ships with Sealign, or its first texts.",
    "schema": {"type": "string", "pattern": f"^{_NAME.pattern}$"},
}
"""The parameter that names public texts."""


def given_public_set(call: Call) -> PublicSet:
    """Return the public texts of a call: one per line in its body, or named by its parameter.

    Raises:
        HttpError: both were given, or the name is not that of the general set. No file of this machine is read.
        InvalidInputError: a faulty line, by its number; or the general set has not so many texts.
    """
    name = call.query.get("public")
    if name is None:
        return PublicSet(tuple(checked_lines(io.BytesIO(call.body), "the public texts")))
    if call.body:
        raise HttpError(
            422, "INVALID_INPUT", "Public texts are given twice. Leave out the body, or the parameter public."
        )
    if not _NAME.fullmatch(name):
        raise HttpError(
            422, "INVALID_INPUT", f"public must be {GENERAL} or {GENERAL}:ROWS. Send other texts as the body."
        )
    return PublicSet.named(name)


async def search_public_set(service: Service, public: PublicSet) -> None:
    """Embed the first texts, which the daemon then searches for what a call gives away."""
    texts = public.texts[:MOST_TEXTS]
    service.public.replace(texts, await service.backend.embed(texts, lambda _: None))


async def put_public_texts(call: Call) -> Response:
    """Answer ``PUT /page/public-texts``: embed public texts here, to search them; nothing is sent."""
    await search_public_set(call.service, given_public_set(call))
    return json_response(PublicTextsState(texts=len(call.service.public)))


async def list_public_sets(call: Call) -> Response:
    """Answer ``GET /page/public-sets``: the parts of the general set that the silo holds."""
    return json_response(PublicSetList(public_sets=_of_the_general_set(await call.service.backend.public_sets())))


def _of_the_general_set(cards: Sequence[PublicSetCard]) -> list[NamedPublicSet]:
    """Return those sets that can be named here, the largest first."""
    texts = general_texts()
    held = {card.rows for card in cards if _is_general(card, texts)}
    return [
        NamedPublicSet(name=GENERAL if rows == len(texts) else f"{GENERAL}:{rows}", texts=rows)
        for rows in sorted(held, reverse=True)
    ]


def _is_general(card: PublicSetCard, texts: tuple[str, ...]) -> bool:
    return 2 <= card.rows <= len(texts) and PublicSet(texts[: card.rows]).digest == card.digest


OPERATIONS = (
    Operation(
        "PUT",
        "/page/public-texts",
        "putPublicTexts",
        "page",
        "Embed public texts, one a line or named, to search them. Nothing is sent.",
        put_public_texts,
        PublicTextsState,
        body_media=TEXT,
        body_required=False,
        parameters=(PUBLIC,),
        faults=(409, 429, 504),
        works=True,
    ),
    Operation(
        "GET",
        "/page/public-sets",
        "listPublicSets",
        "page",
        "List the parts of the general set that the silo holds too, the largest first.",
        list_public_sets,
        PublicSetList,
        faults=(404, 409, 429, 502, 503, 504),
        works=True,
    ),
)
