"""Options of an alignment."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sealign.errors import InvalidInputError
from sealign_client.results import Transfer

if TYPE_CHECKING:
    from typing_extensions import Self

CHANCE = 0.01
"""Explained variance up to which a map says no more than the mean does: what unrelated embeddings reach by chance."""


class AlignmentMode(str, enum.Enum):
    """What the silo sees of the client's embeddings of public texts, and who has the map."""

    PLAIN = "plain"
    """The embeddings; the silo learns the map and retains it."""
    ENCRYPTED = "encrypted"
    """Ciphertexts; the client gets the cross-covariance, learns the map and retains it."""


@dataclass(frozen=True)
class AlignmentOptions:
    """How to align.

    Attributes:
        mode: plain or encrypted.
        register: whether the silo may learn what a map of the client's own makes of the public texts (two matrices),
            so that it fits and calibrates heads for it. Without, results have no probabilities.
        shared_examples: a task whose label names, and examples as far as the silo shares them, join the public set.
        accept_examples: is shown these examples, 128 at most, and returns whether they may be embedded.
        mixture_positions: for a generation task, public positions on which the silo is asked, one query each, to fit
            how much a mixture takes of the client's own predictions; 0 for no mixture.
        accept_poor_map: use a map that predicts no better than chance.
        progress: called with the number of texts that have been embedded since the last call.
        transfer: called with the progress of ciphertexts, in encrypted mode.
    """

    mode: AlignmentMode | str = AlignmentMode.PLAIN
    register: bool = True
    shared_examples: str | None = None
    accept_examples: Callable[[Sequence[str]], bool] | None = None
    mixture_positions: int = 0
    accept_poor_map: bool = False
    progress: Callable[[int], None] | None = None
    transfer: Callable[[Transfer], None] | None = None

    @classmethod
    def of(cls, given: dict[str, Any]) -> Self:
        """Return options from keyword arguments.

        Raises:
            InvalidInputError: an option that there is not, or a mode that there is not, by name.
        """
        known = [field.name for field in fields(cls)]
        if unknown := given.keys() - set(known):
            raise InvalidInputError(f"align has no option {min(unknown)!r}. Its options are: {', '.join(known)}.")
        try:
            AlignmentMode(given.get("mode", AlignmentMode.PLAIN))
        except ValueError:
            modes = ", ".join(mode.value for mode in AlignmentMode)
            raise InvalidInputError(f"There is no alignment mode {given['mode']!r}. The modes are: {modes}.") from None
        return cls(**given)
