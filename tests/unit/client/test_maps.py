"""Maps that a client pins: found by silo, space and encoders, never for anything else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import AffineMap, MapQuality
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.protocol import MapCard, Placement
from sealign_client.local.maps import ClientMaps, Lane, Pin

LANE = Lane("silo", "embeddings", "5" * 64, "c" * 64)


def learned(created: str = "2026-01-01T00:00:00+00:00", value: float = 1.0) -> AffineMap:
    quality = MapQuality(0.5, None, None, 300, 0.1)
    return AffineMap(np.full((2, 3), value), np.zeros(3), LANE.encoder, LANE.target, "d" * 64, quality, created)


def pin_of(made: AffineMap, placement: Placement = Placement.CLIENT, lane: Lane = LANE) -> Pin:
    return Pin(lane, placement, MapCard.of(made))


def test_found_for_what_it_was_pinned_for_only(tmp_path: Path) -> None:
    maps = ClientMaps(tmp_path)
    assert maps.pinned(LANE, Placement.CLIENT) is None
    pin = pin_of(learned())
    maps.pin(pin, learned())
    again = ClientMaps(tmp_path)
    assert again.pinned(LANE, Placement.CLIENT) == pin
    loaded = again.load(pin)
    assert loaded.id == learned().id
    assert loaded.quality == learned().quality
    others = [
        replace(LANE, **{name: value})
        for name, value in (("silo", "other"), ("space", "generation/x"), ("target", "6" * 64), ("encoder", "f" * 64))
    ]
    for other in others:
        assert again.pinned(other, Placement.CLIENT) is None
    assert again.pinned(LANE, Placement.SILO) is None


def test_a_later_alignment_replaces_the_map_and_its_file(tmp_path: Path) -> None:
    maps = ClientMaps(tmp_path)
    maps.pin(pin_of(learned()), learned())
    newer = learned("2026-02-01T00:00:00+00:00", 2.0)
    maps.pin(pin_of(newer), newer)
    found = maps.pinned(LANE, Placement.CLIENT)
    assert found is not None
    assert found.card.id == newer.id
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert len(list(tmp_path.iterdir())) == 2
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_pins_are_listed_found_and_deleted(tmp_path: Path) -> None:
    maps = ClientMaps(tmp_path / "none yet")
    assert list(maps.pins()) == []
    older, newer = learned(), learned("2026-02-01T00:00:00+00:00", 2.0)
    maps.pin(pin_of(older), older)
    maps.pin(pin_of(newer, Placement.SILO))
    assert [pin.card.id for pin in maps.pins()] == [newer.id, older.id]
    assert maps.find(older.id[:8]).placement is Placement.CLIENT
    for name in ("", "no such map"):
        with pytest.raises(NotFoundError, match="sealign maps list"):
            maps.find(name)
    maps.delete(maps.find(older.id))
    maps.delete(maps.find(newer.id))
    assert not list((tmp_path / "none yet").iterdir())


def test_a_map_from_another_encoder_under_this_name(tmp_path: Path) -> None:
    maps, pin = ClientMaps(tmp_path), pin_of(learned())
    maps.pin(pin, learned())
    (path,) = tmp_path.glob("*.safetensors")
    replace(learned(), source_fingerprint="f" * 64).save(path)
    with pytest.raises(InvalidInputError, match="another map"):
        ClientMaps(tmp_path).load(pin)
    path.write_bytes(b"damaged")
    with pytest.raises(StorageError):
        ClientMaps(tmp_path).load(pin)


@pytest.mark.parametrize("content", ["", "[]", '{"format": "sealign.pin/0"}', "null"])
def test_a_damaged_pin_is_named(tmp_path: Path, content: str) -> None:
    maps = ClientMaps(tmp_path)
    maps.pin(pin_of(learned()), learned())
    (path,) = tmp_path.glob("*.json")
    path.write_text(content)
    with pytest.raises(StorageError, match="Delete it and align again"):
        maps.pinned(LANE, Placement.CLIENT)


def test_a_pin_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    maps = ClientMaps(tmp_path)
    maps.pin(pin_of(learned()), learned())
    (path,) = tmp_path.glob("*.json")
    before = json.loads(path.read_text())
    path.rename(tmp_path / "aside")
    path.mkdir()
    with pytest.raises(StorageError):
        ClientMaps(tmp_path).pin(pin_of(learned(value=2.0)), learned(value=2.0))
    assert json.loads((tmp_path / "aside").read_text()) == before
