"""Two models trained from scratch on different halves of real text: one's states drive the other's head."""

from __future__ import annotations

import numpy as np
import pytest

from sealign.alignment import RidgeStatistics, fit_ridge
from sealign.encoders.causal import CausalModel
from sealign.generation import measure_agreement, models_agreement
from sealign.generation.kl import refine_by_divergence
from sealign.generation.states import client_rows, silo_rows
from tests.support import small_lms

PUBLIC, TEST = 400, 40


@pytest.mark.parametrize("name", ["one", "three"], ids=["shared tokenizer", "different tokenizers"])
def test_cross_model_prediction(name: str, two: CausalModel, request: pytest.FixtureRequest) -> None:
    client: CausalModel = request.getfixturevalue(name)

    def read(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        theirs = list(silo_rows(two, texts))
        mine = np.concatenate(list(client_rows(client, two.tokenizer, texts)))
        return mine, np.concatenate([r.states for r in theirs]), np.concatenate([r.following for r in theirs])

    X, Y, _ = read(small_lms.public_texts(PUBLIC))
    x, y, following = read(small_lms.test_texts(TEST))
    statistics = RidgeStatistics(client.card.dimension, two.card.dimension)
    statistics.update(X, Y)
    ridge = fit_ridge(
        statistics,
        source_fingerprint=client.card.fingerprint,
        target_fingerprint=two.card.fingerprint,
        public_set="0" * 64,
    )
    refined = refine_by_divergence(ridge, two.head, X, Y, epochs=8)
    before, after = (measure_agreement(two.head, m.apply(x), y, following) for m in (ridge, refined.map))
    own = models_agreement((client.head, client.tokenizer, x), (two.head, two.tokenizer, y))
    print(f"{name}: {len(X)} rows, own agreement {own:.3f}, ridge {before}, refined {after}")
    assert own > 0.2  # both learned something
    assert after.own_perplexity < 400
    assert after.top1 >= 0.9 * own
    assert after.perplexity_ratio <= 1.2
    assert after.divergence < before.divergence
    wrong = measure_agreement(two.head, np.roll(refined.map.apply(x), 7, axis=0), y, following)
    assert wrong.top1 < 0.5 * own
