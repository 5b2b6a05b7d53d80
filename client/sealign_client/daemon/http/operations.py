"""An endpoint, described once: its route, its checks and its entry in the OpenAPI document come from here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from sealign_client.daemon.http.access import Access
from sealign_client.daemon.http.alignments import Alignments
from sealign_client.daemon.http.backend import Backend
from sealign_client.daemon.http.exposure import PublicTexts
from sealign_client.daemon.http.metrics import Metrics
from sealign_client.daemon.http.options import HttpOptions

JSON = "application/json"
TEXT = "text/plain"
EVENTS = "text/event-stream"


@dataclass
class Service:
    """What endpoints work on."""

    backend: Backend
    options: HttpOptions
    access: Access
    metrics: Metrics = field(default_factory=Metrics)
    public: PublicTexts = field(default_factory=PublicTexts)
    alignments: Alignments = field(default_factory=Alignments)


@dataclass(frozen=True)
class Call:
    """One request, checked.

    Attributes:
        body: of the operation's body class; bytes for another content type than JSON; None without a body.
        path, query: parameters.
    """

    service: Service
    body: Any
    path: dict[str, str]
    query: dict[str, str]


@dataclass(frozen=True)
class Operation:
    """An endpoint.

    Attributes:
        name: unique; the operationId.
        tag: "public", "service" or "page".
        body: what its JSON body must be; None if it has none.
        body_media: content type of the body.
        body_required: whether the body may not be left out.
        answer: what it answers, a pydantic model or another type.
        media: content types of the answer.
        status: of an answer that is no error.
        parameters: of path and query, as OpenAPI describes them.
        faults: statuses of the errors that it may answer, besides those of every endpoint.
        secured: whether a token is needed.
        works: whether it asks model or silo, and so counts among the calls that are limited in number and time.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    handler: Callable[[Call], Awaitable[Response]]
    answer: Any
    body: type[BaseModel] | None = None
    body_media: str = JSON
    body_required: bool = True
    media: tuple[str, ...] = (JSON,)
    status: int = 200
    parameters: tuple[dict[str, Any], ...] = ()
    faults: tuple[int, ...] = ()
    secured: bool = True
    works: bool = False

    @property
    def takes_body(self) -> bool:
        """Whether it has a body."""
        return self.body is not None or self.body_media != JSON


def json_response(answer: BaseModel, status: int = 200) -> Response:
    """Return a model as JSON."""
    return Response(answer.model_dump_json(), status, media_type=JSON)
