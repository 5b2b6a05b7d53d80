"""An encoder that shares nothing with the silo's: its map is refused with the figure, unless that is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealign.errors import InvalidInputError
from sealign_client import Client
from tests.support.processes import serving
from tests.support.silo import Tls
from tests.support.smallsilo import CLIENT_DIMENSION, PUBLIC, Rows, ViewEncoder, make_silo
from tests.support.views import seed_of


class NoiseEncoder(ViewEncoder):
    """Gives a text a direction that says nothing of its meaning."""

    def encode(self, texts: Sequence[str], **_: Any) -> Rows:
        rows = np.array([np.random.default_rng(seed_of(f"noise {t}")).normal(size=CLIENT_DIMENSION) for t in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("mode", ["plain", "encrypted"])
def test_a_map_no_better_than_chance_is_refused_with_the_figure(mode: str, tls: Tls, tmp_path: Path) -> None:
    directory = make_silo(tmp_path / "silo").directory
    with serving("sealign-server", "serve", directory, *tls.serve_options, log=tmp_path / "log") as server:
        settings = tls.client_settings(server.port, map_directory=tmp_path / "maps")
        with Client(settings, encoder=NoiseEncoder("noise", CLIENT_DIMENSION)) as client:
            with pytest.raises(InvalidInputError, match=r"explains -?0\.0\d+ of the variance .* no more than chance"):
                client.align(PUBLIC, mode=mode)
            assert client.describe(refresh=True).map is None
            if mode == "plain":
                card = client.align(PUBLIC, accept_poor_map=True)
                assert card.explained_variance < 0.01
                assert client.describe(refresh=True).map == card
