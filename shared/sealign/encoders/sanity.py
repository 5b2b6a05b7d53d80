"""What is checked once a model is loaded, before anything is embedded with it.

A tokenizer whose files are missing loads as one that knows five tokens; a model that sees padding embeds a text
differently beside a longer one; some embed the same text differently each time. None of them says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sealign.encoders.checkpoint import Checkpoint
from sealign.encoders.windows import Tokens
from sealign.errors import InvalidInputError

TOLERANCE = 1e-3
"""Euclidean distance between two unit vectors of one text up to which they are the same (a cosine of 0.9999995)."""

SENTENCES = (
    "The committee published its yearly report on the harvest and the price of wheat.",
    "Комитет опубликовал годовой отчёт об урожае и ценах на пшеницу.",
    "نشرت اللجنة تقريرها السنوي عن المحصول وأسعار القمح.",
    "समिति ने फ़सल और गेहूँ के दामों पर अपनी वार्षिक रिपोर्ट प्रकाशित की।",
    "委员会发布了关于收成和小麦价格的年度报告。",
    "委員会は収穫と小麦の価格についての年次報告を発表した。",
    "위원회는 수확과 밀 가격에 관한 연례 보고서를 발표했다.",
    "הוועדה פרסמה את הדוח השנתי שלה על היבול ומחיר החיטה.",
    "Η επιτροπή δημοσίευσε την ετήσια έκθεσή της για τη συγκομιδή και την τιμή του σιταριού.",
    "คณะกรรมการเผยแพร่รายงานประจำปีเกี่ยวกับผลผลิตและราคาข้าวสาลี",
)
_UNKNOWN = 0.5
_FEWEST = 8
"""A model has at most so many rows per token of its tokenizer; real vocabularies are padded by a few percent."""
_SMALL = 8192
"""Models with fewer rows may be for something else than language: their tokenizer's own words are tried as well."""

Pair: TypeAlias = tuple[str, str]
Vectors: TypeAlias = Callable[[Sequence[Tokens]], NDArray[np.float32]]


def check_tokenizer(tokenizer: Any, model: Any, checkpoint: Checkpoint) -> Pair:
    """Return two different texts that the tokenizer reads, once it is known to fit the model.

    Raises:
        InvalidInputError: the vocabulary is larger or far smaller than the model's, holds special tokens only, or
            turns a sentence of every probed language mostly into unknown tokens.
    """
    try:
        rows = int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError, TypeError) as error:
        raise checkpoint.refusal(
            f"its architecture ({type(model).__name__}) has no table of token embeddings; choose another text model"
        ) from error
    if len(tokenizer) > rows:
        raise InvalidInputError(
            f"the tokenizer in {checkpoint.model!r} has {len(tokenizer)} tokens and its model only "
            f"{rows}; use the tokenizer that belongs to the model"
        )
    if len(tokenizer) * _FEWEST < rows or set(tokenizer.get_vocab()) <= _apart(tokenizer):
        raise InvalidInputError(
            f"the tokenizer in {checkpoint.model!r} has {len(tokenizer)} tokens and its model {rows}: its files are "
            "missing or of another model; restore tokenizer.json, or the vocabulary file"
        )
    shares = {sentence: _unknown(tokenizer, sentence) for sentence in SENTENCES}
    sentence = min(SENTENCES, key=lambda text: shares[text])
    if shares[sentence] < _UNKNOWN:
        return sentence, f"{sentence[::-1]} {sentence}"  # they differ from the first token on
    words = _own_words(tokenizer) if rows < _SMALL else []
    if len(words) < 2:
        raise InvalidInputError(
            f"the tokenizer in {checkpoint.model!r} turns {shares[sentence]:.0%} or more of every probe text into "
            "unknown tokens: its files are damaged or of another model; restore them"
        )
    half = (len(words) + 1) // 2
    return " ".join(words[:half]), " ".join([*words[half:], *words])


def _apart(tokenizer: Any) -> set[str]:
    """Tokens that stand for no text."""
    return {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}


def _own_words(tokenizer: Any) -> list[str]:
    """Up to 16 regular tokens that the tokenizer reads back, the longest first, as they would stand in a text."""
    apart = _apart(tokenizer)
    words = {token.strip("Ġ▁#").removesuffix("</w>") for token in tokenizer.get_vocab() if token not in apart}
    ordered = sorted((word for word in words if word.strip()), key=lambda word: (-word.isalpha(), -len(word), word))
    return [word for word in ordered[:64] if _unknown(tokenizer, word) == 0][:16]


def _unknown(tokenizer: Any, text: str) -> float:
    """Share of unknown tokens in a text; 1 for a text without tokens."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if not ids:
        return 1.0
    return float(np.mean([number == tokenizer.unk_token_id for number in ids]))


def try_model(vectors: Vectors, short: Tokens, long: Tokens, longest: Tokens, name: str) -> bool:
    """Try a model on two texts, alone and together; whether it needs texts of equal length in a batch.

    Args:
        vectors: the model's pass over one batch.
        short: a text's tokens.
        long: those of a longer text.
        longest: those of a text about as long as the model will read.
        name: of the model.

    Raises:
        InvalidInputError: its vectors are not finite, the same for both texts, other each time, or dependent on what
            shares a batch even where all have one length.
    """
    (alone,), (other,) = vectors([short]), vectors([long])
    if not np.isfinite([alone, other]).all() or not (alone.any() and other.any()):
        raise InvalidInputError(
            f"the encoder {name} gave a vector that is not finite, or is zero, for a probe text; its weights are "
            "damaged or overflow in float32, so choose another model"
        )
    if distance(alone, other) < TOLERANCE / 100:
        raise InvalidInputError(
            f"the encoder {name} gives two different probe texts the same vector; choose another pooling or model"
        )
    again = max(distance(vectors([text])[0], vectors([text])[0]) for text in (short, longest))
    if again > TOLERANCE:
        raise InvalidInputError(
            f"the encoder {name} embeds a text differently each time (distance {again:.2g}, at most {TOLERANCE} is "
            "allowed), so nothing can be aligned with it; choose another model"
        )
    if distance(alone, vectors([short, long])[0]) <= TOLERANCE:
        return False
    turned = {key: values[::-1].copy() for key, values in short.items()}
    beside = distance(alone, vectors([short, turned])[0])
    if beside > TOLERANCE:
        raise InvalidInputError(
            f"the encoder {name} embeds a text differently beside another of equal length (distance {beside:.2g}, at "
            f"most {TOLERANCE} is allowed), so nothing can be aligned with it; choose another model"
        )
    return True


def distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Euclidean distance between two vectors scaled to norm 1; not a number if either has no direction."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (np.asarray(v, dtype=np.float64) / np.linalg.norm(np.asarray(v, dtype=np.float64)) for v in (one, other))
    return float(np.linalg.norm(a - b))


def largest_working(size: int, works: Callable[[int], bool]) -> int:
    """The largest length from 1 to ``size`` for which ``works`` holds, given that it holds for all shorter ones."""
    if works(size):
        return size
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low
