"""Maps that change at the silo under a client that has pinned one: each is one clear sentence with a way on."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from sealign.errors import NoMapError
from sealign_client import Client
from sealign_server.store import SiloStore
from tests.support.processes import serving
from tests.support.silo import Tls
from tests.support.smallsilo import CLIENT_DIMENSION, PUBLIC, ViewEncoder, client_encoder, make_silo

QUERIES = ["query 1", "query 2"]


def test_a_map_that_another_encoder_evicted(tmp_path: Path, tls: Tls) -> None:
    directory = make_silo(tmp_path / "silo").directory
    options = (*tls.serve_options, "--max-maps", "1")
    with serving("sealign-server", "serve", directory, *options, log=tmp_path / "silo.log") as server:
        settings = tls.client_settings(server.port, map_directory=tmp_path / "maps")
        other = ViewEncoder("another", CLIENT_DIMENSION)
        with Client(settings, encoder=client_encoder()) as client, Client(settings, encoder=other) as second:
            client.align(PUBLIC)
            expected = [result.label for result in client.classify(QUERIES)]
            second.align(PUBLIC)
            with pytest.raises(NoMapError, match=r"[Aa]lign"):
                client.classify(QUERIES)
            client.align(PUBLIC)
            assert [result.label for result in client.classify(QUERIES)] == expected


def test_a_newer_map_is_mentioned_and_not_used_until_it_is_accepted(tmp_path: Path, tls: Tls) -> None:
    directory = make_silo(tmp_path / "silo").directory
    with serving("sealign-server", "serve", directory, *tls.serve_options, log=tmp_path / "silo.log") as server:
        settings = tls.client_settings(server.port, map_directory=tmp_path / "maps")
        with Client(settings, encoder=client_encoder()) as client:
            first = client.align(PUBLIC)
        space = SiloStore(directory).space
        record = space.map_record(tls.client.subject, first.id)
        learned = space.load_map(tls.client.subject, first.id)
        changed = replace(learned, weight=learned.weight * 1.01)
        newer = space.save_map(tls.client.subject, changed, record.row_norm, None)
        with Client(settings, encoder=client_encoder()) as client:
            with pytest.warns(UserWarning, match=f"sealign maps delete {first.id[:12]}"):
                client.classify(QUERIES)
            with warnings.catch_warnings(record=True) as said:
                client.classify(QUERIES)
                used = client.describe(refresh=True).map
            assert not [warning for warning in said if "newer" in str(warning.message)]  # once is enough
            assert used is not None
            assert (used.id, newer.card.id == first.id) == (first.id, False)
