"""Few-shot alignment: some of a task's texts, without labels, join the public set.

A map fits best where it saw text. The silo's operator decides twice whether that is worth showing clients texts of
the task: when a task is trained (how many), and when the silo is served (whether at all).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError
from sealign.protocol import PublicSetCard
from sealign_server.store import PublicEmbeddings, ReleasedTexts, SiloStore


def drawn_texts(
    embeddings: NDArray[np.float32], texts: Sequence[str], count: int, seed: int = 0
) -> ReleasedTexts | None:
    """``count`` distinct texts drawn uniformly, with their embeddings, rows of shape (n, d); None for no texts.

    Raises:
        InvalidInputError: there are not so many distinct texts.
    """
    if not count:
        return None
    first = list({text: row for row, text in reversed(list(enumerate(texts)))}.values())
    if not 0 < count <= len(first):
        raise InvalidInputError(f"{count} texts cannot be released of {len(first)} distinct ones; choose fewer")
    chosen = np.sort(np.random.default_rng(seed).choice(first, count, replace=False))
    return ReleasedTexts(tuple(texts[row] for row in chosen), embeddings[chosen])


def join_released(store: SiloStore, public_set: str, released: ReleasedTexts, name: str) -> None:
    """Keep the public set that released texts make of another one, where that is new.

    Args:
        store: holds the public set's texts and embeddings.
        public_set: digest of the set to join.
        released: the texts that join it; those that are in it already are left out.
        name: what to add to the set's name.

    Raises:
        NotFoundError: the silo does not hold that set.
        StorageError: its texts were not kept, or the joined set could not be written.
    """
    texts = store.load_public_texts(public_set)
    joined = texts.joined(released.texts)
    if joined.digest in {card.digest for card in store.public_sets()}:
        return
    public = store.load_public_set(public_set)
    known = frozenset(texts.texts)
    new = [row for row, text in enumerate(released.texts) if text not in known]
    base = public.card.base or public_set
    card = PublicSetCard(joined.digest, len(joined), f"{public.card.name} + {name}", base)
    store.save_public_set(PublicEmbeddings(card, np.concatenate([public.rows, released.embeddings[new]])), joined)
