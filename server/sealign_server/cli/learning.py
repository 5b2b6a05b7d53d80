"""The operator's maps: for publicly known client encoders, usable by everybody."""

from __future__ import annotations

from sealign.alignment import PublicSet
from sealign.encoders import Encoder, EncoderSettings, load_encoder
from sealign.protocol import AlignmentRequest
from sealign_server.serving.plain_alignment import PlainAlignment
from sealign_server.serving.space import Space
from sealign_server.store import OPERATOR, MapRecord
from sealign_server.training.embedding import Progress


def learn_map(space: Space, encoder: EncoderSettings, texts: PublicSet, progress: Progress) -> MapRecord:
    """Embed a public set, which the silo holds, with a client encoder, and keep the map for everybody.

    Raises:
        NotFoundError: the silo does not hold the public set.
        InvalidInputError: the encoder cannot be loaded, or its embeddings are of no use.
        StorageError: the map could not be written.
    """
    space.store.public_set(texts.digest)
    loaded: Encoder = load_encoder(encoder)
    request = AlignmentRequest(space.name, loaded.card, texts.digest, len(texts))
    alignment = PlainAlignment(space, OPERATOR, request)
    alignment.add(loaded.encode(texts.texts, progress=progress))
    return alignment.learn()
