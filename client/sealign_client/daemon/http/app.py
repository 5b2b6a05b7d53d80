"""The HTTP interface of the daemon, as an ASGI application."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from sealign_client.daemon.http import classification, completions, page_api, public_texts, status
from sealign_client.daemon.http.guard import Guard
from sealign_client.daemon.http.openapi import openapi_document
from sealign_client.daemon.http.operations import Call, Operation, Service
from sealign_client.daemon.http.problems import HttpError, problem_response, unusable

OPERATIONS = (
    *classification.OPERATIONS,
    *completions.OPERATIONS,
    *status.OPERATIONS,
    *page_api.OPERATIONS,
    *public_texts.OPERATIONS,
)

_FOLDER = Path(__file__).parents[1] / "page"
_PAGES = {"/": "index.html", "/docs": "docs.html"}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def http_app(service: Service) -> Starlette:
    """Return the application that serves a client over HTTP."""
    operations = {(operation.path, operation.method): operation for operation in OPERATIONS}

    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await _answer(service, operations[request.scope["route"].path, method], request)

    methods: dict[str, list[str]] = {}
    for operation in OPERATIONS:
        methods.setdefault(operation.path, []).append(operation.method)
    routes = [Route(path, answer, methods=allowed) for path, allowed in methods.items()]
    document = json.dumps(openapi_document(OPERATIONS)).encode()
    routes.append(Route("/openapi.json", _constant(document, "application/json")))
    routes += [Route(path, _page_file(name)) for path, name in _page_files().items()]

    def find(scope: Scope) -> tuple[Operation | None, str]:
        for route in routes:
            match, _ = route.matches(scope)
            if match is not Match.NONE:
                method = "GET" if scope["method"] == "HEAD" else scope["method"]
                return operations.get((route.path, method)), route.path
        return None, "other"

    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, service=service, find=find)],
        exception_handlers={HTTPException: _http_exception},
    )


async def _answer(service: Service, operation: Operation, request: Request) -> Response:
    raw = await request.body()
    body: object = raw if operation.takes_body else None
    if operation.body is not None:
        try:
            body = operation.body.model_validate_json(raw)
        except ValidationError as error:
            raise unusable(error, raw) from None
    call = Call(service, body, dict(request.path_params), dict(request.query_params))
    return await operation.handler(call)


async def _http_exception(_: Request, error: Exception) -> Response:
    """Say in Sealign's form what starlette refuses: unknown paths and methods."""
    status, headers = 500, None
    if isinstance(error, HTTPException):
        status, headers = error.status_code, error.headers
    if status == 404:
        return problem_response(HttpError(404, "NOT_FOUND", "There is nothing at this path. See /docs."))
    if status == 405:
        detail = "This path does not take this method. See the Allow header."
        return problem_response(HttpError(405, "INVALID_INPUT", detail, headers=headers))
    return problem_response(HttpError(status, "INVALID_INPUT", "The request cannot be read.", headers=headers))


def _page_files() -> dict[str, str]:
    """Return the files of the page by the paths under which they are served."""
    names = sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.endswith((".css", ".js", ".svg")))
    return {**_PAGES, **{f"/page/{name}": name for name in names}}


def _page_file(name: str) -> Callable[[Request], Awaitable[Response]]:
    return _constant((_FOLDER / name).read_bytes(), _TYPES[name[name.rindex(".") :]])


def _constant(content: bytes, media: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(content, media_type=media)

    return answer
