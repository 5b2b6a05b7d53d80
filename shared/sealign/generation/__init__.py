"""Text generation across independently trained models: one's hidden states drive the other's language-model head.

Source: Gorbett and Jana, "Secure Linear Alignment of Large Language Models", arXiv 2603.18908 (text generation across
models). What needs torch lies in its own module, `sealign.generation.kl`, which this package does not import.
"""

from sealign.generation.forecast import Compatibility, TokenCost, compare_tokenizers, token_cost
from sealign.generation.measures import (
    Agreement,
    Predictor,
    measure_agreement,
    measure_predictions,
    models_agreement,
    predictor,
)
from sealign.generation.mixture import fit_weight, mixed
from sealign.generation.positions import Match, match_positions
from sealign.generation.rewriting import Rewriting, token_counts
from sealign.generation.sampling import Choice, Sampler, Sampling, StopStrings

__all__ = [
    "Agreement",
    "Choice",
    "Compatibility",
    "Match",
    "Predictor",
    "Rewriting",
    "Sampler",
    "Sampling",
    "StopStrings",
    "TokenCost",
    "compare_tokenizers",
    "fit_weight",
    "match_positions",
    "measure_agreement",
    "measure_predictions",
    "mixed",
    "models_agreement",
    "predictor",
    "token_cost",
    "token_counts",
]
