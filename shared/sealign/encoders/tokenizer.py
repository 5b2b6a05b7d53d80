"""A causal model's tokenizer as generation needs it: where tokens end, and what text each of them writes.

It travels to the other side as bytes, so it stands on the `tokenizers` library alone, not on torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sealign.encoders.checks import as_texts
from sealign.errors import InvalidInputError

Ids: TypeAlias = NDArray[np.int64]

_FORMAT = "sealign.causal-tokenizer/1"
_UNDECODABLE = "\ufffd"  # what decoders write for part of a character


@dataclass(frozen=True, eq=False)
class Tokens:
    """A text's tokens, without any that the tokenizer puts before it.

    Attributes:
        ids: (n,).
        offsets: (n, 2), the characters from which each token was made: first, and one after the last. Ends
            never fall; tokens that share a character share its end.
    """

    ids: Ids
    offsets: NDArray[np.int64]

    @property
    def ends(self) -> NDArray[np.int64]:
        """(n,), characters read up to and with each token."""
        ends: NDArray[np.int64] = self.offsets[:, 1]
        return ends

    def __len__(self) -> int:
        return len(self.ids)


class CausalTokenizer:
    """Texts to tokens, and tokens to the text that they add.

    Special tokens written out in a text (as ``<|im_start|>``) are read as the text they are, never as control
    tokens. Safe to call from several threads.

    Attributes:
        prefix: tokens that the model wants before every text, as a beginning-of-text token; often none.
        ends: tokens with which the model ends a text.
    """

    def __init__(self, backend: Tokenizer, prefix: tuple[int, ...], ends: frozenset[int]) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend
        self.prefix = prefix
        self.ends = ends

    @classmethod
    def of(cls, tokenizer: Any, ends: frozenset[int]) -> CausalTokenizer:
        """From a transformers tokenizer; its own end-of-text token joins ``ends``.

        Raises:
            InvalidInputError: it is a slow one, which does not say where tokens end.
        """
        if not tokenizer.is_fast:
            raise InvalidInputError(
                f"the tokenizer {type(tokenizer).__name__} does not say which characters its tokens cover; "
                "generation needs a model with a fast tokenizer (tokenizer.json)"
            )
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        around = backend.encode("a").special_tokens_mask  # a prefix, the text, sometimes a suffix
        prefix = tuple(backend.encode("a").ids[: around.index(0)])
        own = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
        return cls(backend, prefix, ends.union(own))

    @property
    def size(self) -> int:
        """Number of tokens; a model's head may have more outputs."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Tokens as the tokenizer spells them, and their ids."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides tokens, in hexadecimal."""
        return sha256(self.to_bytes()).hexdigest()

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """What each token adds to a text, by id; empty for tokens that add nothing one could append.

        Those are special tokens, ids that no token has, and parts of characters: a text holds whole ones only.
        """
        anchor = self._backend.encode("a", add_special_tokens=False).ids[-1:]
        before = self._backend.decode(anchor, skip_special_tokens=False)
        special = {number for number, token in self._backend.get_added_tokens_decoder().items() if token.special}
        taken = set(self.vocabulary.values())
        count = max(taken) + 1
        # Some decoders drop the space before a text's first token; none is first here.
        written = self._backend.decode_batch([[*anchor, number] for number in range(count)], skip_special_tokens=False)
        pieces = (text.removeprefix(before) if text.startswith(before) else "" for text in written)
        return tuple(
            "" if number in special or number not in taken or _UNDECODABLE in piece else piece
            for number, piece in enumerate(pieces)
        )

    def encode(self, text: str) -> Tokens:
        """Tokens of a text.

        Raises:
            InvalidInputError: nothing to read, too long, not Unicode, or only characters that the tokenizer removes.
        """
        (text,) = as_texts([text])
        encoded = self._backend.encode(text, add_special_tokens=False)
        if not encoded.ids:
            raise InvalidInputError("the text holds only characters that the tokenizer removes; leave it out")
        offsets = np.array(encoded.offsets, dtype=np.int64).reshape(-1, 2)
        offsets[:, 1] = np.maximum.accumulate(offsets[:, 1])
        return Tokens(np.array(encoded.ids, dtype=np.int64), offsets)

    def allowed(self, outputs: int) -> NDArray[np.bool_]:
        """Which of a head's outputs may be sampled, shape (outputs,): tokens that write text or end it.

        Raises:
            InvalidInputError: the head has fewer outputs than the tokenizer has tokens.
        """
        if outputs < len(self.pieces):
            raise InvalidInputError(
                f"the head has {outputs} outputs and the tokenizer {len(self.pieces)} tokens: they belong to "
                "different models; use the model's own tokenizer"
            )
        allowed = np.zeros(outputs, dtype=np.bool_)
        allowed[: len(self.pieces)] = [bool(piece) for piece in self.pieces]
        allowed[[end for end in self.ends if end < outputs]] = True
        return allowed

    def to_bytes(self) -> bytes:
        """All of it, as JSON; large vocabularies compress to a sixth or so."""
        backend = json.loads(self._backend.to_str())
        content = {"format": _FORMAT, "prefix": self.prefix, "ends": sorted(self.ends), "tokenizer": backend}
        return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> CausalTokenizer:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            InvalidInputError: it is something else, or damaged.
        """
        try:
            read = json.loads(content)
            known = read["format"] == _FORMAT
            prefix, ends = ([int(number) for number in read[name]] for name in ("prefix", "ends"))
            backend = Tokenizer.from_str(json.dumps(read["tokenizer"]))
        except Exception as error:
            raise InvalidInputError(f"these bytes are not a whole tokenizer ({error}); fetch them again") from error
        if not known:
            raise InvalidInputError(f"these bytes are a tokenizer of another version than {_FORMAT}; update Sealign")
        return cls(backend, tuple(prefix), frozenset(ends))
