"""Short versions of `make fuzz`, and what longer ones have found."""

from __future__ import annotations

from pathlib import Path

import grpc
from grpc.aio import AioRpcError, Metadata

from sealign.errors import PeerFailedError
from sealign.protocol.status import DETAILS_KEY, error_of, trailers_of
from tests.load.fuzz import at_a_silo, fuzz_decoders


def test_decoders_refuse_what_is_mutated() -> None:
    outcome = fuzz_decoders(15_000, seed=1)
    assert not outcome.faults, outcome.faults[:3]
    assert outcome.ends["decoded"] > 100  # some mutations are harmless
    assert outcome.ends["INVALID_INPUT"] > 1000


def test_a_silo_answers_mutated_messages(tmp_path: Path) -> None:
    outcome = at_a_silo(tmp_path, 500, seed=1)
    assert not outcome.faults, outcome.faults[:3]
    assert outcome.ends["INVALID_ARGUMENT"] > 100
    assert outcome.ends["OK"] > 10


def test_damaged_details_of_an_error_hide_nothing() -> None:
    """They ended a client's call with an error of protobuf's."""
    ((_, details),) = trailers_of(PeerFailedError("what was said", retry_after=1.0))
    damaged = details.replace(b"PEER_FAILED", b"PEER_\xff\xff\xff\xff\xff\xff")
    failure = AioRpcError(grpc.StatusCode.UNKNOWN, Metadata(), Metadata((DETAILS_KEY, damaged)), "what was said")
    assert "what was said" in str(error_of(failure, "the silo"))
