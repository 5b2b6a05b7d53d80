"""A silo's directory as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from sealign.encoders import EncoderCard, EncoderSettings
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign_server.store.files import Document, private_directory
from sealign_server.store.generation import GenerationStore
from sealign_server.store.signing import SigningKeys
from sealign_server.store.space import SpaceStore
from sealign_server.store.tasks import TaskStore

FORMAT = 1


class SiloDocument(Document):
    """silo.json: who the silo is and which encoder its heads were trained on."""

    format_version: Literal[1] = 1
    name: str
    encoder: EncoderSettings
    encoder_card: EncoderCard


class SiloStore:
    """A silo's directory.

    Raises:
        NotFoundError: the directory is not a silo.
        StorageError: silo.json is damaged, or of another version.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = directory / "silo.json"
        try:
            self.document = SiloDocument.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{directory} is not a silo (no silo.json); create one with: sealign-server init {directory}"
            ) from error
        except OSError as error:
            raise StorageError(f"could not read {path}: {error.strerror}") from error
        except ValidationError as error:
            raise StorageError(
                f"{path} is damaged, or of another version of Sealign than this one, which reads format {FORMAT} "
                f"({error.error_count()} faults). See: sealign-server upgrade {directory}"
            ) from error
        self.space = SpaceStore(directory / "space", self.document.encoder_card)
        self.tasks = TaskStore(directory / "tasks", self.space.remove_fitted)
        self.generation = GenerationStore(directory / "generation")
        self.signing = SigningKeys(directory / "signing" / "keys.json")

    @classmethod
    def create(cls, directory: Path, document: SiloDocument) -> SiloStore:
        """Make a silo in ``directory``.

        Raises:
            InvalidInputError: there is a silo already.
            StorageError: the directory cannot be written.
        """
        path = directory / "silo.json"
        if path.exists():
            raise InvalidInputError(f"{directory} is a silo already; choose another directory")
        private_directory(directory)
        document.write(path)
        return cls(directory)

    @property
    def ledger_path(self) -> Path:
        """File of the ledger."""
        return self.directory / "ledger.sqlite"

    @property
    def serving_path(self) -> Path:
        """File that names the process that serves."""
        return self.directory / "serving.pid"

    @property
    def policy_path(self) -> Path:
        """File of the policy; there may be none."""
        return self.directory / "policy.toml"

    @property
    def audit_path(self) -> Path:
        """Directory of the audit trail."""
        return self.directory / "audit"

    @property
    def embedded_path(self) -> Path:
        """Directory of embeddings of training texts."""
        return self.directory / "embedded"
