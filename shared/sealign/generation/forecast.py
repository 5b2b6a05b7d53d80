"""What generation across two models would cost and how well it may go, before anything is paid for.

Success tracks how often both tokenizers cut a text alike (Gorbett and Jana, "Secure Linear Alignment of Large Language
Models", arXiv 2603.18908: r = 0.90 between exact token matches and the quality of what is generated).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealign.ckks import PackingPlan
from sealign.errors import InvalidInputError

if TYPE_CHECKING:
    from sealign.encoders.tokenizer import CausalTokenizer

_MS = 1000.0


@dataclass(frozen=True)
class Compatibility:
    """How alike two tokenizers are.

    Attributes:
        jaccard: vocabularies' intersection over union, tokens being the same if they write the same text.
        exact_match: share of the silo's tokens over some texts that the client's tokenizer cuts exactly alike.
        boundary_match: share of the silo's tokens at whose end one of the client's ends too.
        tokens: of the silo's, over those texts.
    """

    jaccard: float
    exact_match: float
    boundary_match: float
    tokens: int


@dataclass(frozen=True)
class TokenCost:
    """Predicted cost of one token, from the plan of the product.

    Attributes:
        parameters: name of the parameter set.
        precision: largest error of a logit.
        sent, received: bytes, without framing.
        seconds: client, wire (100 Mbit/s) and silo, one after the other; the client's own model is not in it.
    """

    parameters: str
    precision: float
    sent: int
    received: int
    seconds: float


def compare_tokenizers(client: CausalTokenizer, silo: CausalTokenizer, texts: Sequence[str]) -> Compatibility:
    """Compare two tokenizers over some texts, the more the surer; a hundred do.

    Raises:
        InvalidInputError: no texts, or one that cannot be read.
    """
    if not texts:
        raise InvalidInputError("tokenizers are compared over texts; give some public ones")
    mine, theirs = ({piece for piece in tokenizer.pieces if piece} for tokenizer in (client, silo))
    exact = boundary = tokens = 0
    for text in texts:
        ours, others = client.encode(text), silo.encode(text)
        spans = set(map(tuple, ours.offsets.tolist()))
        ends = set(ours.ends.tolist())
        exact += sum(tuple(span) in spans for span in others.offsets.tolist())
        boundary += sum(end in ends for end in others.ends.tolist())
        tokens += len(others)
    return Compatibility(len(mine & theirs) / len(mine | theirs), exact / tokens, boundary / tokens, tokens)


def token_cost(plan: PackingPlan) -> TokenCost:
    """What one token costs under a plan, whether the silo published it or `candidates` proposes it."""
    cost = plan.cost_of(1)
    return TokenCost(
        plan.parameters.name, plan.precision, cost.request_bytes, cost.reply_bytes, cost.milliseconds / _MS
    )
