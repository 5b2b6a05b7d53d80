"""Finished cross-covariances that their clients have not confirmed yet: files that outlive the silo's process.

A release is counted before its first byte leaves, so one that was lost on the way must be sent again, by whichever
worker the client comes back to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from sealign.ckks import EncryptedProduct, PackingPlan, ReplyCiphertext, SecurityTable
from sealign.errors import OverloadedError, SealignError, StorageError
from sealign.files import load_arrays, save_arrays
from sealign.protocol import CrossCovariancePart
from sealign_server.store.files import by_age, delete, named_digest, private_directory
from sealign_server.store.plans import plan_from_document, plan_to_document

_log = structlog.get_logger()

SESSION_BYTES = 16
PER_IDENTITY = 4
"""Results kept for one identity; a further one takes the place of its oldest."""
IN_ALL = 64
"""Results kept; with more, an identity that has none yet is asked to come back later."""


@dataclass(frozen=True)
class Undelivered:
    """A sanitised cross-covariance, part by part, as its client will get it.

    Attributes:
        session: the name under which the client comes back.
        identity: whose it is.
        about: what the client asked for, which it must ask for again.
        plan: of the product.
        parts: replies to its row blocks.
    """

    session: bytes
    identity: str
    about: Mapping[str, str | int]
    plan: PackingPlan
    parts: tuple[CrossCovariancePart, ...]


class UndeliveredStore:
    """Private files, bounded in number and age, shared by all processes.

    Args:
        directory: where they are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def require_room(self, identity: str, hours: float) -> None:
        """Refuse an alignment whose result could not be kept.

        Raises:
            OverloadedError: too many clients have not fetched their results.
        """
        self.sweep(hours)
        if len(self._files()) >= IN_ALL and not self._files(identity):
            raise OverloadedError(
                f"{IN_ALL} clients have not fetched the cross-covariances that the silo keeps for them; try again "
                "later",
                retry_after=60.0,
            )

    def keep(self, result: Undelivered) -> None:
        """Keep a result until its client has confirmed it.

        Raises:
            StorageError: the file could not be written; nothing of it may be sent.
        """
        earlier = self._files(result.identity)
        while len(earlier) >= PER_IDENTITY:
            _log.warning("undelivered cross-covariance evicted for a newer one", identity=result.identity)
            delete(earlier.pop(0))
        replies = [part.product.ciphertexts for part in result.parts]
        arrays = {
            name: np.frombuffer(b"".join(getattr(c, name) for part in replies for c in part), np.uint8)
            for name in ("outputs", "mask")
        }
        facts = {
            "about": dict(result.about),
            "plan": plan_to_document(result.plan),
            "key": result.parts[0].product.key_id.hex(),
            "squared_norm": result.parts[0].squared_norm,
            "counts": [len(part) for part in replies],
        }
        path = self._path(result.identity, result.session)
        private_directory(path.parent)
        save_arrays(path, arrays, {"facts": json.dumps(facts)})

    def find(
        self, session: bytes, identity: str, about: Mapping[str, str | int], table: SecurityTable
    ) -> Undelivered | None:
        """Return the result that a client comes back to; None if it is not held, or is another's or another request's.

        Raises:
            StorageError: the file is damaged.
        """
        path = self._path(identity, session)
        if len(session) != SESSION_BYTES or not path.exists():
            return None
        arrays, metadata = load_arrays(path)
        try:
            facts = json.loads(metadata["facts"])
            if facts["about"] != dict(about):
                return None
            plan = plan_from_document(facts["plan"], table)
            parts = _parts(plan, facts, arrays["outputs"].tobytes(), arrays["mask"].tobytes())
        except (KeyError, TypeError, ValueError, SealignError) as error:
            raise StorageError(f"{path} is damaged; delete it, and align again") from error
        return Undelivered(session, identity, about, plan, parts)

    def remove(self, result: Undelivered) -> None:
        """Delete a result: its client has it, or may not have it."""
        delete(self._path(result.identity, result.session))

    def sweep(self, hours: float) -> None:
        """Delete results whose clients have stayed away for too long."""
        before = time.time() - hours * 3600
        for path in self._files():
            with suppress(FileNotFoundError):  # another worker's sweep, or a client that has confirmed
                if path.stat().st_mtime < before:
                    _log.warning("undelivered cross-covariance evicted", session=path.stem[-8:])
                    delete(path)

    def _files(self, identity: str | None = None) -> list[Path]:
        """Return the files of one identity or of all, the oldest first."""
        owner = "*" if identity is None else named_digest(identity)
        return by_age(list(self._directory.glob(f"{owner}/*.safetensors")))

    def _path(self, identity: str, session: bytes) -> Path:
        return self._directory / named_digest(identity) / f"{session[:SESSION_BYTES].hex()}.safetensors"


def _parts(plan: PackingPlan, facts: dict[str, Any], outputs: bytes, mask: bytes) -> tuple[CrossCovariancePart, ...]:
    counts: list[int] = facts["counts"]
    total = sum(counts)
    if len(outputs) % total or len(mask) % total:
        raise ValueError("the replies are not all of the same length")
    width, mask_width = len(outputs) // total, len(mask) // total
    replies = iter(
        ReplyCiphertext(outputs[i * width : (i + 1) * width], mask[i * mask_width : (i + 1) * mask_width])
        for i in range(total)
    )
    key, squared_norm = bytes.fromhex(facts["key"]), float(facts["squared_norm"])
    return tuple(
        CrossCovariancePart(
            index, EncryptedProduct(plan.id, key, tuple(next(replies) for _ in range(count))), squared_norm
        )
        for index, count in enumerate(counts)
    )
