"""Texts to embeddings: the client's or the silo's own language model behind one small interface.

An encoder turns n texts into a float32 array of shape (n, d). Its card carries a fingerprint of
everything that decides those numbers, so that an affine map learned for one encoder never meets
another silently (section 4 of "Secure Linear Alignment of Large Language Models", arXiv 2603.18908,
has one map for each pair of models).

Families come from the entry-point group ``sealign.encoders``; importing this package loads none of
them, hence neither torch nor transformers.
"""

from sealign.encoders.encoder import Embeddings, Encoder, EncoderCard
from sealign.encoders.loading import load_encoder
from sealign.encoders.settings import EncoderSettings

__all__ = ["Embeddings", "Encoder", "EncoderCard", "EncoderSettings", "load_encoder"]
