"""The errors that Sealign raises, one class for each kind of thing that can be wrong.

Every message says what is wrong, where, and what to do. No message carries a text, an embedding, a logit or a key.

There are two kinds. What a caller did is sent to it, under a stable code and a gRPC status. What is wrong at this
machine (:class:`MachineError`) is logged here under an id, and the other side gets the id alone.
"""

from __future__ import annotations

from typing import ClassVar


class SealignError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        code: stable name, for programs; the ``reason`` of ``google.rpc.ErrorInfo`` on the wire.
        status: gRPC status under which the error crosses the wire.
        retry_after: seconds after which it makes sense to ask again; None where waiting alone does not help.
    """

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidInputError(SealignError, ValueError):
    """Bytes, shapes, numbers or settings that cannot be used as they are."""

    code = "INVALID_INPUT"
    status = "INVALID_ARGUMENT"


class InsecureParametersError(SealignError):
    """Parameters below the demanded security level, or unknown here."""

    code = "INSECURE_PARAMETERS"
    status = "INVALID_ARGUMENT"


class NotFoundError(SealignError):
    """A task, space, file or public set that does not exist."""

    code = "NOT_FOUND"
    status = "NOT_FOUND"


class UnknownKeyError(SealignError):
    """The silo does not hold the public key; send it with the request."""

    code = "UNKNOWN_KEY"
    status = "FAILED_PRECONDITION"


class StalePlanError(SealignError):
    """The request was packed under a plan that the silo no longer serves; describe and ask again."""

    code = "STALE_PLAN"
    status = "FAILED_PRECONDITION"


class NoMapError(SealignError):
    """The caller has no map for this encoder; align first."""

    code = "NO_MAP"
    status = "FAILED_PRECONDITION"


class NoPlanError(SealignError):
    """No parameter set can hold the outputs of this task; the silo's operator must change what is served."""

    code = "NO_PLAN"
    status = "FAILED_PRECONDITION"


class UnknownMapError(SealignError):
    """The silo does not hold this registration of a map; register it again."""

    code = "UNKNOWN_MAP"
    status = "FAILED_PRECONDITION"


class UnknownSessionError(SealignError):
    """The silo does not hold this encrypted alignment any more; start it again."""

    code = "UNKNOWN_SESSION"
    status = "FAILED_PRECONDITION"


class NotPermittedError(SealignError):
    """The caller's identity may not do this."""

    code = "NOT_PERMITTED"
    status = "PERMISSION_DENIED"


class ReleaseRefusedError(NotPermittedError):
    """The silo does not release this, or no more of it, to this client."""

    code = "RELEASE_REFUSED"


class BudgetExhaustedError(SealignError):
    """The caller has used up what it may ask for in this period."""

    code = "BUDGET_EXHAUSTED"
    status = "RESOURCE_EXHAUSTED"


class OverloadedError(SealignError):
    """The silo refuses work that it could not do in time; try again later."""

    code = "OVERLOADED"
    status = "RESOURCE_EXHAUSTED"


class RateLimitedError(OverloadedError):
    """The caller asks more often than its tier allows; ask again after the time that is given."""

    code = "RATE_LIMITED"


class UnavailableError(SealignError):
    """The other side cannot be reached or is shutting down."""

    code = "UNAVAILABLE"
    status = "UNAVAILABLE"


class AuthenticationError(SealignError):
    """A certificate that is missing, expired or not trusted."""

    code = "UNAUTHENTICATED"
    status = "UNAUTHENTICATED"


class DecryptionError(SealignError):
    """A reply that does not decrypt to values within the promised range."""

    code = "DECRYPTION_FAILED"
    status = "DATA_LOSS"


class VerificationError(DecryptionError):
    """A reply that is not the product of the encrypted rows."""

    code = "VERIFICATION_FAILED"


class UntrustedCardError(SealignError):
    """A card that is not signed by the silo's key, or a silo with another key than the one that the client pinned."""

    code = "UNTRUSTED_CARD"
    status = "DATA_LOSS"


class WrongAnswersError(SealignError):
    """A silo whose answers to canaries are not those that it gave at first."""

    code = "WRONG_ANSWERS"
    status = "DATA_LOSS"


class PeerFailedError(SealignError):
    """The other side failed, for a reason of its own; its log has the reason under the id in the message."""

    code = "PEER_FAILED"


class MachineError(SealignError):
    """Something is wrong at this machine. Its message stays here; the other side gets an id."""

    code = "MACHINE"


class StorageError(MachineError):
    """A file that cannot be read or written; what was there before is still there."""

    code = "STORAGE"
