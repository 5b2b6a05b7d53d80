"""The OpenAPI document of the HTTP interface, made from its operations."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, TypeAdapter

from sealign_client.daemon.http.operations import EVENTS, Operation
from sealign_client.daemon.http.problems import MEDIA_TYPE, TITLES, Problem

_REFERENCE = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Classifies and continues texts with a silo's models. Texts come here in the clear and leave this computer only as "
    "ciphertexts."
)


def openapi_document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of some operations."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _entry(operation, schemas)
    _schema(Problem, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sealign daemon", "version": version("sealign"), "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _entry(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": _responses(operation, schemas),
        "security": [{"token": []}] if operation.secured else [],
    }
    if operation.parameters:
        entry["parameters"] = list(operation.parameters)
    if operation.takes_body:
        schema = _schema(operation.body, schemas) if operation.body is not None else {"type": "string", "minLength": 3}
        entry["requestBody"] = {
            "required": operation.body_required,
            "content": {operation.body_media: {"schema": schema}},
        }
    return entry


def _responses(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    answer = _schema(operation.answer, schemas)
    content = {media: {"schema": {} if media == EVENTS else answer} for media in operation.media}
    responses: dict[str, Any] = {str(operation.status): {"description": "The answer.", "content": content}}
    problem = {MEDIA_TYPE: {"schema": _schema(Problem, schemas)}}
    for status in sorted(_faults(operation)):
        responses[str(status)] = {"description": TITLES[status], "content": problem}
    return responses


def _faults(operation: Operation) -> set[int]:
    """Return the statuses of the errors that an operation may answer, those of the guard included."""
    faults = {403, 500, *operation.faults}
    if operation.secured:
        faults.add(401)
    if operation.takes_body:
        faults |= {400, 413, 415, 422}
    if any(parameter["in"] == "query" for parameter in operation.parameters):
        faults.add(422)
    return faults


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a reference to a model's schema, or the schema of another type; definitions join ``schemas``."""
    mode: Any = "serialization"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        mode = "validation" if kind.model_config.get("extra") == "forbid" else "serialization"
    schema = TypeAdapter(kind).json_schema(ref_template=_REFERENCE, mode=mode)
    schemas.update(schema.pop("$defs", {}))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        schemas[kind.__name__] = schema
        return {"$ref": _REFERENCE.format(model=kind.__name__)}
    return schema
