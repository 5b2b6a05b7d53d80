"""Finished cross-covariances that their clients have not confirmed yet: files that outlive the silo's process.

A release is counted before its first byte leaves, so one that was lost on the way must be sent again, by whichever
worker the client comes back to.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import structlog

from sealign.errors import OverloadedError, StorageError
from sealign.files import load_arrays, save_arrays
from sealign.protocol.v1 import silo_pb2 as pb
from sealign_server.releases import Release

_log = structlog.get_logger()

SESSION_BYTES = 16
PER_CLIENT = 4
"""Products kept for one client; a further one takes the place of its oldest."""
IN_ALL = 16
"""Products kept; with more, a client that has none yet is asked to come back later."""


@dataclass(frozen=True)
class UnsentProduct:
    """A sanitised cross-covariance, part by part, as its client will get it.

    Attributes:
        session: the name under which the client comes back.
        release: what it counts as.
        offer: tells the client its plan, and that no block is missing.
        parts: replies to its row blocks.
    """

    session: bytes
    release: Release
    offer: pb.AlignmentOffer
    parts: tuple[pb.CrossCovariancePart, ...]


class UnsentProducts:
    """Private files (mode 0600), bounded in number and age.

    Args:
        directory: where they are; shared by all workers.
        hours: how long a product is kept.
    """

    def __init__(self, directory: Path, hours: float) -> None:
        self._directory = directory
        self._hours = hours

    def require_room(self, client: str) -> None:
        """Refuse an alignment whose product could not be kept.

        Raises:
            OverloadedError: too many clients have not fetched their products.
        """
        self.sweep()
        if len(self._files()) >= IN_ALL and not self._files(client):
            raise OverloadedError(
                f"{IN_ALL} clients have not fetched the cross-covariances that the silo keeps for them; try again later"
            )

    def keep(self, product: UnsentProduct) -> None:
        """Keep a product until its client has confirmed it.

        Raises:
            StorageError: the file could not be written; nothing of it may be sent.
        """
        self.sweep()
        earlier = self._files(product.release.client)
        while len(earlier) >= PER_CLIENT:
            _log.warning("unsent cross-covariance given up for a newer one", client=product.release.client)
            _delete(earlier.pop(0))
        messages = [product.offer.SerializeToString(), *(part.SerializeToString() for part in product.parts)]
        arrays = {str(index): np.frombuffer(message, np.uint8) for index, message in enumerate(messages)}
        path = self._path(product.release.client, product.session)
        save_arrays(path, arrays, {"release": json.dumps(asdict(product.release))}, mode=0o600)

    def find(self, session: bytes, release: Release) -> UnsentProduct | None:
        """The product that a client comes back to; None if it is not kept here, or is another client's or request's.

        Raises:
            StorageError: the file is damaged.
        """
        self.sweep()
        path = self._path(release.client, session)
        if len(session) != SESSION_BYTES or not path.exists():
            return None
        arrays, metadata = load_arrays(path)
        try:
            if Release(**json.loads(metadata["release"])) != release:
                return None
            offer, *parts = (arrays[str(index)].tobytes() for index in range(len(arrays)))
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged; delete it, and align again") from error
        return UnsentProduct(
            session,
            release,
            pb.AlignmentOffer.FromString(offer),
            tuple(pb.CrossCovariancePart.FromString(part) for part in parts),
        )

    def remove(self, product: UnsentProduct) -> None:
        """Forget a product: its client has it, or may not have it."""
        _delete(self._path(product.release.client, product.session))

    def sweep(self) -> None:
        """Delete products whose clients have stayed away for too long."""
        before = time.time() - self._hours * 3600
        for path in self._files():
            with suppress(FileNotFoundError):  # another worker's sweep, or a client that has confirmed
                if path.stat().st_mtime < before:
                    _log.warning("unsent cross-covariance given up", session=path.stem[-8:])
                    _delete(path)

    def _files(self, client: str | None = None) -> list[Path]:
        """Files of one client or of all, oldest first."""
        found = []
        for path in self._directory.glob("*.safetensors" if client is None else f"{_digest(client)}-*.safetensors"):
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def _path(self, client: str, session: bytes) -> Path:
        return self._directory / f"{_digest(client)}-{session[:SESSION_BYTES].hex()}.safetensors"


def _digest(client: str) -> str:
    return sha256(client.encode()).hexdigest()[:16]


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # who asked can do nothing about it
        _log.error("unsent cross-covariance not deleted", path=str(path), reason=error.strerror)
