"""Digests of messages: damage and mixed-up keys are noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealign.ckks import EncryptedMatrix, EncryptedProduct, ReplyCiphertext, SeededCiphertext, verify_digest
from sealign.errors import InvalidInputError

QUERY = EncryptedMatrix(
    "plan-1", b"A" * 32, (SeededCiphertext(b"s" * 64, b"w" * 40), SeededCiphertext(b"t" * 64, b"x" * 40))
)
REPLY = EncryptedProduct("plan-1", b"A" * 32, (ReplyCiphertext(b"o" * 8, b"m" * 40),))


def test_good_messages_pass() -> None:
    verify_digest(QUERY, QUERY.digest())
    verify_digest(REPLY, REPLY.digest())
    assert len(QUERY.digest()) == 16
    assert QUERY.byte_count == 2 * 104
    assert REPLY.byte_count == 48


def _flipped(content: bytes, bit: int) -> bytes:
    octets = bytearray(content)
    octets[bit // 8 % len(octets)] ^= 1 << bit % 8
    return bytes(octets)


@given(
    bit=st.integers(0, 10_000), field=st.sampled_from(["seed", "words", "key_id", "digest"]), index=st.integers(0, 1)
)
def test_any_flipped_bit_of_a_query_is_noticed(bit: int, field: str, index: int) -> None:
    digest, damaged = QUERY.digest(), QUERY
    if field == "digest":
        digest = _flipped(digest, bit)
    elif field == "key_id":
        damaged = replace(QUERY, key_id=_flipped(QUERY.key_id, bit))
    else:
        ciphertexts = list(QUERY.ciphertexts)
        content = _flipped(getattr(ciphertexts[index], field), bit)
        ciphertexts[index] = replace(ciphertexts[index], **{field: content})
        damaged = replace(QUERY, ciphertexts=tuple(ciphertexts))
    with pytest.raises(InvalidInputError, match="do not match their digest"):
        verify_digest(damaged, digest)


@given(bit=st.integers(0, 10_000), field=st.sampled_from(["outputs", "mask"]))
def test_any_flipped_bit_of_a_reply_is_noticed(bit: int, field: str) -> None:
    (ciphertext,) = REPLY.ciphertexts
    damaged = replace(ciphertext, **{field: _flipped(getattr(ciphertext, field), bit)})
    with pytest.raises(InvalidInputError, match="do not match their digest"):
        verify_digest(replace(REPLY, ciphertexts=(damaged,)), REPLY.digest())


def test_another_keys_ciphertexts_are_noticed() -> None:
    """Made under key A, relabelled as key B's: the digest that came with them names A."""
    with pytest.raises(InvalidInputError, match="another key"):
        verify_digest(replace(QUERY, key_id=b"B" * 32), QUERY.digest())


@pytest.mark.parametrize(
    "changed",
    [
        replace(QUERY, plan="plan-2"),
        replace(QUERY, ciphertexts=QUERY.ciphertexts[::-1]),
        replace(QUERY, ciphertexts=QUERY.ciphertexts[:1]),
        replace(QUERY, ciphertexts=QUERY.ciphertexts * 2),
        # The same bytes, cut elsewhere.
        replace(QUERY, ciphertexts=(SeededCiphertext(b"s" * 64 + b"w", b"w" * 39), QUERY.ciphertexts[1])),
    ],
    ids=["plan", "order", "cut", "repeated", "shifted boundary"],
)
def test_structure_is_part_of_the_digest(changed: EncryptedMatrix) -> None:
    with pytest.raises(InvalidInputError):
        verify_digest(changed, QUERY.digest())


@pytest.mark.parametrize("digest", [b"", b"\0" * 15, b"\0" * 16, QUERY.digest() + b"\0"])
def test_wrong_digests_of_any_length(digest: bytes) -> None:
    with pytest.raises(InvalidInputError):
        verify_digest(QUERY, digest)
