"""The errors that Sealign raises, one class for each kind of thing that can be wrong.

Every message says what is wrong, where, and what to do. No message carries a text, an embedding, a
logit or a key. Each class names the gRPC status under which it crosses the wire.
"""

from __future__ import annotations

from typing import ClassVar


class SealignError(Exception):
    """Base of all errors raised on purpose."""

    status: ClassVar[str] = "INTERNAL"


class InvalidInputError(SealignError, ValueError):
    """Bytes, shapes, numbers or settings that cannot be used as they are."""

    status = "INVALID_ARGUMENT"


class NotFoundError(SealignError):
    """A task, file or public set that does not exist."""

    status = "NOT_FOUND"


class UnknownKeyError(SealignError):
    """The silo does not hold the public key; upload it and ask again."""

    status = "FAILED_PRECONDITION"


class StalePlanError(SealignError):
    """The request was packed under a plan that the silo no longer serves; describe and ask again."""

    status = "FAILED_PRECONDITION"


class NoMapError(SealignError):
    """No map has been learned for this encoder; align first."""

    status = "FAILED_PRECONDITION"


class NoPlanError(SealignError):
    """No parameter set can hold the outputs of this task; the silo's operator must change what is served."""

    status = "FAILED_PRECONDITION"


class UnknownMapError(SealignError):
    """The silo does not hold what a client has told about its map; tell it again."""

    status = "FAILED_PRECONDITION"


class UnknownSessionError(SealignError):
    """The silo does not hold this encrypted alignment any more; start it again."""

    status = "FAILED_PRECONDITION"


class ReleaseRefusedError(SealignError):
    """The silo does not release this, or no more of it, to this client."""

    status = "PERMISSION_DENIED"


class InsecureParametersError(SealignError):
    """Parameters below the demanded security level, or unknown here."""

    status = "INVALID_ARGUMENT"


class DecryptionError(SealignError):
    """A reply that does not decrypt to values within the promised range."""

    status = "DATA_LOSS"


class VerificationError(DecryptionError):
    """A reply that is not the product of the encrypted rows."""


class OverloadedError(SealignError):
    """The silo refuses work it could not do in time; try again later."""

    status = "RESOURCE_EXHAUSTED"


class UnavailableError(SealignError):
    """The other side cannot be reached or is shutting down."""

    status = "UNAVAILABLE"


class AuthenticationError(SealignError):
    """A certificate that is missing, expired or not trusted."""

    status = "UNAUTHENTICATED"


class StorageError(SealignError):
    """A file that cannot be read or written; what was there before is still there."""

    status = "INTERNAL"
