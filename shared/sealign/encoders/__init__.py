"""Texts to embeddings: the client's or the silo's own language model behind one small interface.

An encoder turns n texts into a float32 array of shape (n, d). Its card carries a fingerprint of
everything that decides those numbers, so that an affine map learned for one encoder never meets
another silently (section 4 of "Secure Linear Alignment of Large Language Models", arXiv 2603.18908,
has one map for each pair of models).

Families come from the entry-point group ``sealign.encoders``; importing this package loads none of
them, hence neither torch nor transformers.
"""

from sealign.encoders.checks import as_texts
from sealign.encoders.encoder import EmbeddedTexts, Embeddings, Encoder, EncoderCard, TextEncoder, embed, lengths
from sealign.encoders.loading import load_encoder
from sealign.encoders.probes import Finding, check_encoder, probe_embeddings, same_vectors
from sealign.encoders.settings import EncoderSettings, LongTexts

__all__ = [
    "EmbeddedTexts",
    "Embeddings",
    "Encoder",
    "EncoderCard",
    "EncoderSettings",
    "Finding",
    "LongTexts",
    "TextEncoder",
    "as_texts",
    "check_encoder",
    "embed",
    "lengths",
    "load_encoder",
    "probe_embeddings",
    "same_vectors",
]
