"""Tokenizers of a few tokens, written by hand."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from sealign.encoders.tokenizer import CausalTokenizer

END = "<end>"


def tokenizer_of(tokens: Sequence[str]) -> CausalTokenizer:
    """A tokenizer that cuts texts into these tokens, the longest first; ``<end>`` ends a text."""
    words = sorted((token for token in tokens if token != END), key=len, reverse=True)
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=words[-1]))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(words)), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([END])
    return CausalTokenizer(backend, (), frozenset({list(tokens).index(END)}))
