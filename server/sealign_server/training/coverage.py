"""How well public sets cover a task, from the embeddings of the texts that it trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sealign.alignment import PublicSet
from sealign.alignment.coverage import Coverage
from sealign.alignment.coverage_report import measure_coverage
from sealign.app.progress import progress
from sealign.encoders.encoder import Embeddings
from sealign_server.store import SiloStore
from sealign_server.training.embedding import silo_encoder


def task_coverage(store: SiloStore, texts: Sequence[str], public: Mapping[str, PublicSet]) -> dict[str, Coverage]:
    """Return the coverage of each public set by its name, and of several together; nothing is kept or sent.

    Public sets that the silo holds are not embedded again.

    Args:
        store: the silo.
        texts: of the task, those it was trained on for instance.
        public: sets that clients could align over.

    Raises:
        InvalidInputError: too few texts, or the encoder cannot be loaded or is not the one that embedded what the silo
            holds.
    """
    held = {card.digest for card in store.space.public_sets()}
    known = {texts.texts: texts.digest for texts in public.values() if texts.digest in held}
    encoder = silo_encoder(store)

    def encode(some: Sequence[str]) -> Embeddings:
        digest = known.get(tuple(some))
        if digest is not None:
            rows: Embeddings = store.space.load_public_set(digest).rows.astype(np.float32)
            return rows
        with progress("embedding", len(some)) as advance:
            return encoder.encode(some, progress=advance)

    return measure_coverage(encode, texts, public)
