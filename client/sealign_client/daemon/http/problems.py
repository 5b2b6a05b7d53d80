"""Errors as problem details (RFC 9457) with Sealign's stable codes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import JSONResponse

from sealign.errors import SealignError
from sealign.protocol.status import sendable

_log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
_MOST_FAULTS = 20

STATUS = {
    "INVALID_INPUT": 422,
    "NOT_FOUND": 404,
    "NO_MAP": 409,
    "NO_PLAN": 409,
    "NOT_PERMITTED": 403,
    "RELEASE_REFUSED": 403,
    "BUDGET_EXHAUSTED": 429,
    "OVERLOADED": 429,
    "UNAVAILABLE": 503,
    "UNKNOWN_KEY": 503,
    "STALE_PLAN": 503,
    "UNKNOWN_MAP": 503,
    "UNKNOWN_SESSION": 503,
    "INSECURE_PARAMETERS": 502,
    "UNAUTHENTICATED": 502,  # the silo refuses this daemon; a caller without a token gets 401
    "DECRYPTION_FAILED": 502,
    "VERIFICATION_FAILED": 502,
    "PEER_FAILED": 502,
}
"""HTTP status of each stable code."""

TITLES = {
    400: "The request cannot be read",
    401: "A token is needed",
    403: "Not permitted",
    404: "Not found",
    405: "Method not allowed",
    409: "The task is not ready for this daemon",
    413: "Too large",
    415: "Content type not supported",
    422: "The input cannot be used",
    429: "Too much at a time",
    500: "The daemon failed",
    502: "The silo failed",
    503: "The silo is not available",
    504: "Out of time",
}


class Fault(BaseModel):
    """One fault of a request's body."""

    pointer: str = Field(description="JSON pointer to the value, for example #/inputs/0.")
    detail: str


class Problem(BaseModel):
    """A problem detail (RFC 9457)."""

    type: str = Field(description="Reference to the code's description on this daemon's /docs page.")
    title: str
    status: int = Field(ge=400, le=599)
    code: str = Field(description="Stable name, for programs.")
    detail: str = Field(description="What is wrong, where, and what to do.")
    message: str = Field(description="The same as detail, where clients of OpenAI look for it.")
    errors: list[Fault] | None = Field(default=None, description="Faults of the body, if it does not fit the schema.")


class HttpError(Exception):
    """A request that HTTP itself, or its guard, refuses."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, faults: Any = None
    ) -> None:
        super().__init__(detail)
        self.problem = _problem(status, code, detail, faults)
        self.headers = dict(headers or {})


def problem_response(error: Exception) -> JSONResponse:
    """Return the response that describes an error; what is this machine's fault is logged under an id."""
    problem, headers = problem_of(error), dict[str, str]()
    if isinstance(error, HttpError):
        headers = error.headers
    elif isinstance(error, SealignError) and error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif problem.status in (429, 503):
        headers["Retry-After"] = "1"
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, problem.status, headers, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """Return the problem that an error is; what is this machine's fault is logged under an id, which is sent."""
    if isinstance(error, HttpError):
        return error.problem
    sent, incident = sendable(error)
    if incident is not None:
        _log.error("http call failed", incident=incident, error=type(error).__name__, reason=str(error))
        return _problem(500, sent.code, f"The daemon failed. Its log has the reason under id {incident}.")
    return _problem(STATUS.get(sent.code, 500), sent.code, str(sent))


def unusable(error: ValidationError, body: bytes) -> HttpError:
    """Return the refusal of a body that does not fit its schema; no value of the body is quoted."""
    details = error.errors(include_url=False, include_input=False)
    if any(detail["type"] == "json_invalid" for detail in details):
        return HttpError(400, "INVALID_INPUT", "The body is not JSON. Send one JSON object in UTF-8.")
    parsed, faults = json.loads(body), dict[str, str]()
    for detail in details:
        pointer = _pointer(detail["loc"], parsed, detail["type"])
        faults.setdefault(pointer, _message(detail))
    found = [Fault(pointer=pointer, detail=message) for pointer, message in list(faults.items())[:_MOST_FAULTS]]
    summary = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in found[:3])
    return HttpError(422, "INVALID_INPUT", f"The body does not fit its schema. {summary}", faults=found)


def _problem(status: int, code: str, detail: str, faults: list[Fault] | None = None) -> Problem:
    title = TITLES.get(status, "Error")
    return Problem(
        type=f"/docs#{code}", title=title, status=status, code=code, detail=detail, message=detail, errors=faults
    )


def _message(detail: Any) -> str:
    if detail["type"] == "extra_forbidden":
        return "unknown field; remove it"
    if detail["type"] == "missing":
        return "required field is missing"
    return str(detail["msg"])


def _pointer(location: Sequence[int | str], value: Any, kind: str) -> str:
    """Return a JSON pointer without the names that pydantic gives to the members of a union."""
    path = []
    for part in location:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if inside:
            value = value[part]
        elif not (kind == "missing" and part == location[-1]):
            continue
        path.append(str(part).replace("~", "~0").replace("/", "~1"))
    return "#/" + "/".join(path)
