"""What generation across two models may give and will cost, before anything is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from sealign.ckks import LARGEST_MODULUS_BITS, PackingPlan, ProductShape, candidates
from sealign.generation.forecast import compare_tokenizers, token_cost
from sealign.generation.vocabulary import DEFAULT_PRECISION
from sealign_client.generate import Generator
from sealign_client.results import Forecast

if TYPE_CHECKING:
    from sealign.encoders.causal import CausalModel


async def forecast(generator: Generator, texts: Sequence[str], task: str | None) -> Forecast:
    """Return the forecast of a task over some texts; see `AsyncClient.forecast`."""
    offer = await generator.offer(task)
    tokenizer, model = await generator.tokenizer(offer.card.name), await generator.model()
    run, used = generator.routes.session.run, None if offer.route is None else offer.route.card
    return Forecast(
        await run(compare_tokenizers, model.tokenizer, tokenizer, texts),
        token_cost(offer.card.plan or _typical_plan(model.card.dimension, offer.card.vocabulary)),
        None if used is None else used.explained_variance,
        None if used is None else used.divergence,
        await run(_seconds_a_token, model, texts[0]),
    )


def _typical_plan(dimension: int, vocabulary: int) -> PackingPlan:
    """Return the plan for a head of usual norms: those of SmolLM2 and Gemma 3 are of this size."""
    column, row = 5.0, 50.0
    shape = ProductShape(
        rows=1,
        dimension=dimension,
        outputs=vocabulary,
        frobenius_norm=column * vocabulary**0.5,
        range=column * row / 4,  # logits come nowhere near the bound
        row_norm=row,
        precision=DEFAULT_PRECISION,
        column_norm=column,
    )
    return candidates(shape, max_bytes=1 << 40, max_modulus_bits=LARGEST_MODULUS_BITS)[0]


def _seconds_a_token(model: CausalModel, text: str) -> float:
    """Return the time to read a text's last token, once all before it were read."""
    session = model.session()
    session.advance(text)
    started = perf_counter()
    session.advance(text)  # reads the last token again
    return perf_counter() - started
