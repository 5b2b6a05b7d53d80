"""Maps that a client keeps: found by encoder, silo and public set, never for anything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import AffineMap, MapQuality
from sealign.errors import InvalidInputError, StorageError
from sealign.protocol import PublicSetCard, SiloCard
from sealign_client.maps import ClientMaps

SETS = (PublicSetCard("d" * 64, 300, "news"), PublicSetCard("e" * 64, 300, "films"))
SILO = SiloCard("silo", (), SETS, None, encoder="5" * 64, dimension=3)


def learned(created: str = "2026-01-01T00:00:00+00:00", public_set: str = "d" * 64) -> AffineMap:
    quality = MapQuality(0.5, None, None, 300, 0.1)
    return AffineMap(np.ones((2, 3)), np.zeros(3), "c" * 64, "5" * 64, public_set, quality, created)


@pytest.mark.parametrize("stored", [False, True])
def test_found_for_what_it_was_learned_for_only(tmp_path: Path, stored: bool) -> None:
    maps = ClientMaps(tmp_path if stored else None)
    assert maps.find(SILO, "c" * 64) is None
    maps.keep(SILO, learned())
    found = (ClientMaps(tmp_path) if stored else maps).find(SILO, "c" * 64)
    assert found is not None
    assert found.quality == learned().quality
    others = (replace(SILO, name="other"), replace(SILO, encoder="6" * 64), replace(SILO, public_sets=SETS[1:]))
    for other in others:
        assert maps.find(other, "c" * 64) is None
    assert maps.find(SILO, "f" * 64) is None


def test_the_newest_of_several(tmp_path: Path) -> None:
    maps = ClientMaps(tmp_path)
    maps.keep(SILO, learned("2026-02-01T00:00:00+00:00"))
    maps.keep(SILO, learned("2026-01-01T00:00:00+00:00", "e" * 64))
    found = maps.find(SILO, "c" * 64)
    assert found is not None
    assert found.public_set == "d" * 64


def test_a_map_from_another_encoder_under_this_name(tmp_path: Path) -> None:
    maps = ClientMaps(tmp_path)
    maps.keep(SILO, learned())
    (path,) = tmp_path.iterdir()
    replace(learned(), source_fingerprint="f" * 64).save(path)
    with pytest.raises(InvalidInputError, match="between other encoders"):
        ClientMaps(tmp_path).find(SILO, "c" * 64)
    path.write_bytes(b"damaged")
    with pytest.raises(StorageError):
        ClientMaps(tmp_path).find(SILO, "c" * 64)
