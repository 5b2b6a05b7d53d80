"""How well public sets cover a client's queries, from its own embeddings, before it aligns with anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sealign.alignment import PublicSet
from sealign.alignment.coverage import Coverage
from sealign.alignment.coverage_report import measure_coverage
from sealign.app.console import progress
from sealign.encoders import Encoder
from sealign.encoders.encoder import Embeddings


def query_coverage(encoder: Encoder, texts: Sequence[str], public: Mapping[str, PublicSet]) -> dict[str, Coverage]:
    """Of each public set by its name, and of several together; nothing is sent.

    Args:
        encoder: the client's.
        texts: like those it will ask about.
        public: sets that it could align over.

    Raises:
        InvalidInputError: too few texts, or texts that cannot be embedded.
    """

    def encode(some: Sequence[str]) -> Embeddings:
        with progress("embedding", len(some)) as advance:
            return encoder.encode(some, progress=advance)

    return measure_coverage(encode, texts, public)
