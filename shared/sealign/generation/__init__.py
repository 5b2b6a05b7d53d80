"""Text generation across independently trained models: one's hidden states drive the other's language-model head.

Source: Gorbett and Jana, "Secure Linear Alignment of Large Language Models", arXiv 2603.18908 (text generation across
models). What needs torch lies in its own module, `sealign.generation.kl`, which this package does not import.
"""

from sealign.generation.forecast import Compatibility, TokenCost, compare_tokenizers, token_cost
from sealign.generation.measures import Agreement, measure_agreement, models_agreement
from sealign.generation.positions import Match, match_positions
from sealign.generation.sampling import Choice, Sampler, Sampling, StopStrings

__all__ = [
    "Agreement",
    "Choice",
    "Compatibility",
    "Match",
    "Sampler",
    "Sampling",
    "StopStrings",
    "TokenCost",
    "compare_tokenizers",
    "match_positions",
    "measure_agreement",
    "models_agreement",
    "token_cost",
]
