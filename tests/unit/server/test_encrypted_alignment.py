"""The silo's half of encrypted alignment, without a network: what it refuses to release at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sealign.alignment import ScaledRows
from sealign.ckks import PARAMETER_SETS, Cipher, SecretKey
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, OverloadedError, UnknownKeyError
from sealign.protocol import EMBEDDINGS, AlignmentRequest
from sealign_server.ledger import Release
from sealign_server.serving import Alignments
from sealign_server.serving.encrypted_alignment import EncryptedAlignment
from sealign_server.settings import ServingOptions
from sealign_server.store import PublicRows, SiloStore
from tests.support.silo import space_of
from tests.unit.server.conftest import ALICE, BOB, CLIENT_DIMENSION, DIGEST, PUBLIC_ROWS, Rows

RELEASE = Release(EMBEDDINGS, DIGEST, "c" * 64, ALICE, PUBLIC_ROWS, CLIENT_DIMENSION)


@pytest.fixture
def request_(client_card: EncoderCard) -> AlignmentRequest:
    return AlignmentRequest(EMBEDDINGS, client_card, DIGEST, PUBLIC_ROWS)


def begun(store: SiloStore, request: AlignmentRequest) -> tuple[EncryptedAlignment, Cipher]:
    alignment = EncryptedAlignment(space_of(store), request, RELEASE, None)
    key = SecretKey.generate(alignment.plan.parameters)
    alignment.use_key(key.public_key)
    return alignment, Cipher(alignment.plan, key)


@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_silo_embeddings_that_are_of_no_use(store: SiloStore, request_: AlignmentRequest, value: float | None) -> None:
    rows = store.space.load_public_set(DIGEST).rows.copy()
    if value is None:
        rows[:] = rows[0]
    else:
        rows[3, 4] = value
    store.space.save_public_set(PublicRows(store.space.public_set(DIGEST), rows))
    with pytest.raises(InvalidInputError, match="all the same or not finite"), np.errstate(invalid="ignore"):
        EncryptedAlignment(space_of(store), request_, RELEASE, None)


def test_embeddings_that_would_overflow_the_promised_range(
    store: SiloStore, request_: AlignmentRequest, public_rows: Rows
) -> None:
    """Detected before anything is summed, and never wrapped around the modulus."""
    alignment, cipher = begun(store, request_)
    alignment._weight = replace(alignment._weight, norms=4 * alignment.plan.range * alignment._weight.norms)
    first = next(iter(cipher.encrypt_blocks(ScaledRows.of(public_rows).rows)))
    with pytest.raises(InvalidInputError, match="could overflow the range"):
        alignment.add(0, first)
    assert alignment.next_block == 0
    with pytest.raises(InvalidInputError, match="0 of"):
        alignment.finish()


def test_a_finished_product_stays_the_same(store: SiloStore, request_: AlignmentRequest, public_rows: Rows) -> None:
    alignment, cipher = begun(store, request_)
    for index, block in enumerate(cipher.encrypt_blocks(ScaledRows.of(public_rows).rows)):
        alignment.add(index, block)
    assert alignment.finish() == alignment.finish()


def test_the_key_may_change_until_a_block_is_summed(
    store: SiloStore, request_: AlignmentRequest, public_rows: Rows
) -> None:
    alignment = EncryptedAlignment(space_of(store), request_, RELEASE, None)
    keys = [SecretKey.generate(alignment.plan.parameters) for _ in range(2)]
    cipher = Cipher(alignment.plan, keys[1])
    first = next(iter(cipher.encrypt_blocks(ScaledRows.of(public_rows).rows)))
    with pytest.raises(UnknownKeyError, match="send it in the header"):
        alignment.add(0, first)
    for key in keys:
        alignment.use_key(key.public_key)
    alignment.add(0, first)
    alignment.use_key(keys[1].public_key)
    with pytest.raises(InvalidInputError, match="another key"):
        alignment.use_key(keys[0].public_key)


def test_the_keys_parameter_set_is_taken_where_it_can_be(store: SiloStore, request_: AlignmentRequest) -> None:
    made = set()
    for parameters in PARAMETER_SETS.values():
        key = SecretKey.generate(parameters).public_key
        made.add(EncryptedAlignment(space_of(store), request_, RELEASE, key).plan.parameters.name)
    assert len(made) > 1


async def test_an_unattended_alignment_makes_room_for_its_clients_next(
    store: SiloStore, request_: AlignmentRequest
) -> None:
    space, alignments = space_of(store), Alignments(ServingOptions())
    session = await alignments.begin(space, request_, RELEASE, None)
    attachment = alignments.attach(session)
    with pytest.raises(OverloadedError, match="aligning already"):
        await alignments.begin(space, request_, RELEASE, None)
    assert alignments.find(session.id, RELEASE) is session
    alignments.detach(session, attachment, done=False)
    again = await alignments.begin(space, request_, RELEASE, None)
    assert alignments.find(session.id, RELEASE) is None
    assert alignments.find(again.id, RELEASE) is again


async def test_a_session_is_its_identitys_and_its_requests(store: SiloStore, request_: AlignmentRequest) -> None:
    from dataclasses import replace

    space, alignments = space_of(store), Alignments(ServingOptions())
    session = await alignments.begin(space, request_, RELEASE, None)
    for other in ({"identity": BOB}, {"encoder": "e" * 64}, {"dimension": 8}, {"public_set": "e" * 64}):
        assert alignments.find(session.id, replace(RELEASE, **other)) is None
