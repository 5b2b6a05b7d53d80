"""What an identity may do, in this version: every certificate the same, and anonymous callers query alone."""

from __future__ import annotations

from dataclasses import dataclass

from sealign.errors import NotPermittedError
from sealign_server.access.identities import ANONYMOUS

_NEED_A_NAME = frozenset({"Align", "AlignEncrypted", "RegisterMap", "SharedExamples"})
"""Calls that leave something at the silo, or get what it gives to known clients alone."""


@dataclass(frozen=True)
class Permissions:
    """What callers may do.

    Attributes:
        share_examples: whether the silo gives known clients shared examples.
    """

    share_examples: bool = False

    def require(self, identity: str, method: str) -> None:
        """Refuse a call that an identity may not make.

        Raises:
            NotPermittedError: it needs a certificate.
        """
        if identity == ANONYMOUS and method in _NEED_A_NAME:
            raise NotPermittedError(
                "a caller without a certificate may query and nothing else: give a client certificate (--tls-cert, "
                "--tls-key), or use a map that the silo's operator has made for your encoder"
            )

    def may_align(self, identity: str) -> bool:
        """Return whether an identity may align and register maps."""
        return identity != ANONYMOUS

    def may_read_examples(self, identity: str) -> bool:
        """Return whether an identity is given shared examples."""
        return self.share_examples and identity != ANONYMOUS
