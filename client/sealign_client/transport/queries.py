"""Encrypted queries and their replies, the same for classification and generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sealign.ckks import EncryptedMatrix, EncryptedProduct, PublicKey
from sealign.protocol import RowKind
from sealign.protocol.conversions.types import matrix_to_wire, public_key_to_wire, rows_to_wire


@dataclass(frozen=True)
class Query:
    """An encrypted query to one version of a task.

    Attributes:
        revision: of the task's card, from which the plan came.
        key: travels with the first query of a connection, and after UNKNOWN_KEY; None in others.
    """

    task: str
    revision: str
    rows: RowKind
    matrix: EncryptedMatrix
    key: PublicKey | None = None


@dataclass(frozen=True)
class Reply:
    """A reply, or a part of one.

    Attributes:
        product: encrypted outputs, of consecutive output blocks.
        first_block: the first of these blocks; 0 for a whole reply.
        server_ms: milliseconds that the silo spent on the ciphertexts so far.
    """

    product: EncryptedProduct
    first_block: int
    server_ms: float


def wire_fields(query: Query) -> dict[str, Any]:
    """Return the fields of a request message, of classification or generation."""
    return {
        "task": query.task,
        "revision": query.revision,
        "rows": rows_to_wire(query.rows),
        "query": matrix_to_wire(query.matrix),
        "key": None if query.key is None else public_key_to_wire(query.key),
    }
