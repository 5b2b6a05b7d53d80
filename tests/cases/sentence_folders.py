"""Sentence-transformers folders of many kinds, and what that package makes of them.

The vectors in ``sentence_folders.json`` come from sentence-transformers 6.2.0 on torch 2.13.0 and transformers 5.23.0:

    pip install --target /tmp/st --no-deps sentence-transformers==6.2.0
    PYTHONPATH=.:shared:/tmp/st python -m tests.cases.sentence_folders
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.support.tiny_models import TEXTS, sentence_folder

REFERENCE = Path(__file__).with_suffix(".json")

_TANH, _IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
_PROMPTS = {"prompts": {"query": "Query: ", "passage": ""}, "default_prompt_name": "query"}


def dense(inputs: int, outputs: int, activation: str = _TANH, **more: Any) -> dict[str, Any]:
    """The configuration of a Dense module."""
    return {"in_features": inputs, "out_features": outputs, "bias": True, "activation_function": activation, **more}


FOLDERS: dict[str, dict[str, Any]] = {
    "mean": {"layers": [None]},
    "mean, not normalised": {},
    "cls": {"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}},
    "last": {"pooling": {"pooling_mode": "lasttoken"}},
    "max": {"pooling": {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, "layers": [None]},
    "weighted mean": {"pooling": {"pooling_mode": "weightedmean"}},
    "mean by square root": {"pooling": {"pooling_mode": "mean_sqrt_len_tokens"}},
    "two joined, old keys": {"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}},
    "three joined, new key": {"pooling": {"pooling_mode": ["max", "cls", "lasttoken"]}},
    "dense": {"layers": [dense(16, 8)]},
    "two dense without bias": {
        "layers": [dense(16, 24, _IDENTITY, bias=False), dense(24, 16, _IDENTITY, bias=False), None]
    },
    "dense with residual": {"layers": [dense(16, 16, "torch.nn.modules.activation.GELU", use_residual=True)]},
    "narrowing with residual": {"layers": [None, dense(16, 6, use_residual=True)]},
    "default prompt": {"top": _PROMPTS},
    "prompt not pooled": {"pooling": {"pooling_mode": "mean", "include_prompt": False}, "top": _PROMPTS},
    "prompt not pooled, weighted": {
        "pooling": {"pooling_mode": ["weightedmean", "cls"], "include_prompt": False},
        "top": _PROMPTS,
    },
    "short": {"transformer": {"max_seq_length": 24}},
    "lower case": {"transformer": {"do_lower_case": True}},
    "fewer dimensions": {"layers": [None], "top": {"truncate_dim": 6}},
    "transformer in a folder": {"folder": "0_Transformer", "layers": [None]},
}


def main() -> None:
    """Write the reference vectors."""
    import sentence_transformers

    vectors = {}
    for name, options in FOLDERS.items():
        with tempfile.TemporaryDirectory() as directory:
            path = sentence_folder(Path(directory) / "model", **options)
            rows = sentence_transformers.SentenceTransformer(str(path), device="cpu").encode(TEXTS)
            vectors[name] = [[round(float(number), 8) for number in row] for row in rows]
    origin = f"sentence-transformers {sentence_transformers.__version__}"
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in vectors.items())
    REFERENCE.write_text(f'{{"origin": "{origin}", "vectors": {{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
