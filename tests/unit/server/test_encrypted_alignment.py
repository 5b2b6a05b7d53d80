"""The silo's half of encrypted alignment, without a network: what it refuses to release at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import ScaledRows
from sealign.ckks import Cipher, SecretKey, ZeroPool
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError
from sealign_server.encrypted_alignment import EncryptedAlignment
from sealign_server.releases import Release
from sealign_server.settings import ServeSettings
from sealign_server.store import PublicEmbeddings, SiloStore
from tests.unit.server.conftest import CLIENT_DIMENSION, DIGEST, PUBLIC_ROWS, Rows

RELEASE = Release(DIGEST, "c" * 64, "CN=client", PUBLIC_ROWS, CLIENT_DIMENSION)


def changed(store: SiloStore, rows: Rows) -> SiloStore:
    store.save_public_set(PublicEmbeddings(store.public_set(DIGEST), rows))
    return store


@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_silo_embeddings_that_are_of_no_use(
    store: SiloStore, settings: ServeSettings, client_card: EncoderCard, value: float | None
) -> None:
    rows = store.load_public_set(DIGEST).rows.copy()
    if value is None:
        rows[:] = rows[0]
    else:
        rows[3, 4] = value
    with pytest.raises(InvalidInputError, match="all the same or not finite"), np.errstate(invalid="ignore"):
        EncryptedAlignment(changed(store, rows), settings, client_card, RELEASE)


def test_embeddings_that_would_overflow_the_promised_range(
    store: SiloStore, settings: ServeSettings, client_card: EncoderCard, public_rows: Rows
) -> None:
    """Detected before anything is summed, and never wrapped around the modulus."""
    alignment = EncryptedAlignment(store, settings, client_card, RELEASE)
    alignment._weight *= 4 * alignment.plan.range
    cipher = Cipher(alignment.plan, SecretKey.generate(alignment.plan.parameters))
    first = next(iter(cipher.encrypt_blocks(ScaledRows.of(public_rows).rows)))
    with pytest.raises(InvalidInputError, match="could overflow the range"):
        alignment.add(0, first, ZeroPool(cipher.key.public_key))
    assert alignment.next_block == 0
    with pytest.raises(InvalidInputError, match="0 of"):
        alignment.finish()


def test_a_finished_product_stays_the_same(
    store: SiloStore, settings: ServeSettings, client_card: EncoderCard, public_rows: Rows, tmp_path: Path
) -> None:
    alignment = EncryptedAlignment(store, settings, client_card, RELEASE)
    cipher = Cipher(alignment.plan, SecretKey.generate(alignment.plan.parameters))
    zeros = ZeroPool(cipher.key.public_key)
    for index, block in enumerate(cipher.encrypt_blocks(ScaledRows.of(public_rows).rows)):
        alignment.add(index, block, zeros)
    assert alignment.finish() == alignment.finish()
