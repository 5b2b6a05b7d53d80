"""The silo's directory: the only place where its heads, maps and public embeddings are kept.

silo.json                     name, encoder settings and the encoder's card
silo.toml                     settings for serving (optional)
public/<digest>.safetensors   the silo's embeddings of a public text set
public/<digest>.texts         its texts, so that released texts can join them
tasks/<task>/head.safetensors the trained head
tasks/<task>/task.json        its description
tasks/<task>/calibration.safetensors  labelled embeddings and class statistics, to fit and calibrate heads for maps
tasks/<task>/released.json    unlabelled texts that clients may get for alignment (optional)
tasks/<task>/released.safetensors  their embeddings
maps/<fingerprint>.safetensors  the map learned for a client's encoder
channels/<id>.safetensors     what clients have told about maps of their own, the newest of it
releases.sqlite               cross-covariances released under encrypted alignment
unsent/                       those that their clients have not confirmed yet
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from sealign.alignment import AffineMap, MappedChannel, PublicSet
from sealign.encoders import EncoderCard, EncoderSettings
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.files import load_arrays, save_arrays, write_atomically
from sealign.heads import ClassStatistics, TrainedHead
from sealign.protocol import PublicSetCard, find_public_set

_CALIBRATION = "calibration.safetensors"
_STATISTICS = ("counts", "means", "within")
_RELEASED = "released.json"
_TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


class SiloDocument(BaseModel):
    """silo.json: who the silo is and which encoder its heads were trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    encoder: EncoderSettings
    encoder_card: EncoderCard


class TaskDocument(BaseModel):
    """task.json: what a task is about, for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""


@dataclass(frozen=True)
class PublicEmbeddings:
    """The silo's embeddings of a public set, shape (n, d), row i for text i."""

    card: PublicSetCard
    rows: NDArray[np.float32]


@dataclass(frozen=True)
class CalibrationRows:
    """What heads for mapped embeddings are fitted and measured with. As private as the texts.

    Attributes:
        embeddings: the silo's own, of labelled texts, (n, d).
        labels: one a row.
        statistics: of the task's other texts; None where a class has too few.
    """

    embeddings: NDArray[np.float32]
    labels: tuple[str, ...]
    statistics: ClassStatistics | None = None


@dataclass(frozen=True)
class ReleasedTexts:
    """Texts of a task, without labels, that clients may be given, and the silo's embeddings of them, (k, d)."""

    texts: tuple[str, ...]
    embeddings: NDArray[np.float32]


class SiloStore:
    """Reads and writes a silo's directory; every file is replaced as a whole or not at all.

    Raises:
        NotFoundError: the directory is not a silo.
        StorageError: silo.json is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.document = SiloDocument.model_validate_json((directory / "silo.json").read_bytes())
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{directory} is not a silo (no silo.json); create one with: sealign-server init {directory}"
            ) from error
        except OSError as error:
            raise StorageError(f"could not read {directory / 'silo.json'}: {error.strerror}") from error
        except ValidationError as error:
            raise StorageError(f"{directory / 'silo.json'} is damaged ({error.error_count()} faults)") from error

    @classmethod
    def create(cls, directory: Path, document: SiloDocument) -> SiloStore:
        """A new silo in ``directory``.

        Raises:
            InvalidInputError: there is a silo already.
            StorageError: the directory cannot be written.
        """
        path = directory / "silo.json"
        if path.exists():
            raise InvalidInputError(f"{directory} is a silo already; choose another directory")
        write_atomically(path, document.model_dump_json(indent=2).encode())
        return cls(directory)

    def remove_leftovers(self) -> None:
        """Delete temporary files that a killed process left behind."""
        for leftover in self.directory.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    # Tasks

    def task_names(self) -> list[str]:
        """Names of the tasks that have a head, sorted."""
        return sorted(path.parent.name for path in self.directory.glob("tasks/*/head.safetensors"))

    def save_task(
        self,
        name: str,
        document: TaskDocument,
        head: TrainedHead,
        calibration: CalibrationRows | None = None,
        released: ReleasedTexts | None = None,
    ) -> None:
        """Keep a task; the head last, since its presence makes the task.

        Without calibration rows the head's own temperature and thresholds are served for every map. Without released
        texts, those of an earlier version of the task are forgotten.

        Raises:
            InvalidInputError: the name is not a short lower-case identifier.
            StorageError: a file could not be written; the earlier head is intact.
        """
        if not _TASK_NAME.fullmatch(name):
            raise InvalidInputError(f"task name {name!r} must be 1 to 63 of a-z, 0-9, '.', '_', '-'")
        write_atomically(self._task(name) / "task.json", document.model_dump_json(indent=2).encode())
        path = self._task(name) / _CALIBRATION
        if calibration is None:
            path.unlink(missing_ok=True)
        else:
            arrays: dict[str, NDArray[np.generic]] = {"embeddings": calibration.embeddings}
            metadata = {"labels": json.dumps(calibration.labels)}
            if calibration.statistics is not None:
                arrays |= {name: getattr(calibration.statistics, name) for name in _STATISTICS}
                metadata["classes"] = json.dumps(calibration.statistics.labels)
            save_arrays(path, arrays, metadata, mode=0o600)
        self._save_released(name, released)
        head.save(self._task(name) / "head.safetensors")

    def load_task(self, name: str) -> tuple[TaskDocument, TrainedHead]:
        """A task's description and head.

        Raises:
            StorageError, InvalidInputError: a file is missing or damaged.
        """
        head = TrainedHead.load(self._task(name) / "head.safetensors")
        try:
            document = TaskDocument.model_validate_json((self._task(name) / "task.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise StorageError(f"task.json of task {name} is missing or damaged; train the task again") from error
        return document, head

    def load_calibration(self, name: str) -> CalibrationRows | None:
        """A task's calibration rows; None where the task was kept without.

        Raises:
            StorageError: the file is damaged.
        """
        path = self._task(name) / _CALIBRATION
        if not path.exists():
            return None
        arrays, metadata = load_arrays(path)
        try:
            statistics = None
            if "classes" in metadata:
                classes = tuple(json.loads(metadata["classes"]))
                statistics = ClassStatistics(classes, *(arrays[name] for name in _STATISTICS))
            return CalibrationRows(arrays["embeddings"], tuple(json.loads(metadata["labels"])), statistics)
        except (KeyError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error}); train the task again") from error

    def load_released(self, name: str) -> ReleasedTexts | None:
        """The texts that a task may release; None where it was kept without.

        Raises:
            StorageError: a file is damaged, or the texts were changed after they were embedded.
        """
        path = self._task(name) / _RELEASED
        if not path.exists():
            return None
        try:
            texts = tuple(json.loads(path.read_bytes())["texts"])
        except (OSError, KeyError, ValueError) as error:
            raise StorageError(f"{path} is damaged; train the task again") from error
        arrays, metadata = load_arrays(path.with_suffix(".safetensors"))
        if metadata.get("texts") != _digest(texts):
            raise StorageError(f"{path} holds other texts than were embedded; train the task again")
        return ReleasedTexts(texts, arrays["embeddings"])

    def _save_released(self, name: str, released: ReleasedTexts | None) -> None:
        path = self._task(name) / _RELEASED
        path.unlink(missing_ok=True)
        rows = path.with_suffix(".safetensors")
        if released is None:
            rows.unlink(missing_ok=True)
            return
        save_arrays(rows, {"embeddings": released.embeddings}, {"texts": _digest(released.texts)}, mode=0o600)
        content = json.dumps({"texts": released.texts}, ensure_ascii=False, indent=1)
        write_atomically(path, content.encode("utf-8", "surrogatepass"), mode=0o600)

    def _task(self, name: str) -> Path:
        return self.directory / "tasks" / name

    # Public sets

    def public_sets(self) -> list[PublicSetCard]:
        """Cards of the public sets that the silo has embedded."""
        cards = []
        for path in sorted(self.directory.glob("public/*.json")):
            content = json.loads(path.read_bytes())
            cards.append(PublicSetCard(path.stem, content["rows"], content["name"], content.get("base", "")))
        return cards

    def public_set(self, digest: str) -> PublicSetCard:
        """The card of a public set.

        Raises:
            NotFoundError: the silo does not hold that set.
        """
        return find_public_set(self.public_sets(), digest)

    def save_public_set(self, embeddings: PublicEmbeddings, texts: PublicSet | None = None) -> None:
        """Keep the silo's embeddings of a public set; the card last, since its presence makes the set.

        Without its texts, no released texts can join it.
        """
        card = embeddings.card
        path = self.directory / "public" / card.digest
        if texts is not None:
            write_atomically(path.with_suffix(".texts"), json.dumps(texts.texts).encode(), mode=0o600)
        save_arrays(path.with_suffix(".safetensors"), {"rows": embeddings.rows}, {"digest": card.digest})
        content = json.dumps({"rows": card.rows, "name": card.name, "base": card.base})
        write_atomically(path.with_suffix(".json"), content.encode())

    def load_public_set(self, digest: str) -> PublicEmbeddings:
        """The silo's embeddings of a public set.

        Raises:
            NotFoundError: the silo does not hold that set.
        """
        card = self.public_set(digest)
        arrays, _ = load_arrays(self.directory / "public" / f"{card.digest}.safetensors")
        return PublicEmbeddings(card, arrays["rows"])

    def load_public_texts(self, digest: str) -> PublicSet:
        """The texts of a public set.

        Raises:
            NotFoundError: the silo does not hold that set.
            StorageError: its texts were not kept, or are damaged.
        """
        path = self.directory / "public" / f"{self.public_set(digest).digest}.texts"
        try:
            texts = PublicSet(tuple(json.loads(path.read_bytes())))
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} is missing or damaged; embed the set again (sealign-server init)") from error
        if texts.digest != digest:
            raise StorageError(f"{path} holds other texts; embed the set again (sealign-server init)")
        return texts

    @property
    def releases_path(self) -> Path:
        """Where released cross-covariances are counted."""
        return self.directory / "releases.sqlite"

    @property
    def unsent_path(self) -> Path:
        """Where finished cross-covariances wait for their clients."""
        return self.directory / "unsent"

    # Maps

    def map_path(self, fingerprint: str) -> Path:
        """Where the map of a client's encoder is kept."""
        return self.directory / "maps" / f"{fingerprint}.safetensors"

    def map_fingerprints(self) -> list[str]:
        """Fingerprints of the client encoders that have a map."""
        return sorted(path.stem for path in self.directory.glob("maps/*.safetensors"))

    def load_map(self, fingerprint: str) -> AffineMap:
        """The map of a client's encoder.

        Raises:
            StorageError, InvalidInputError: missing or damaged, or learned for another encoder.
        """
        learned = AffineMap.load(self.map_path(fingerprint))
        if (learned.source_fingerprint, learned.target_fingerprint) != (
            fingerprint,
            self.document.encoder_card.fingerprint,
        ):
            raise InvalidInputError(
                f"map {self.map_path(fingerprint).name} was learned between other encoders; align again"
            )
        return learned

    # Channels of maps that clients apply

    def keep_channel(self, name: str, channel: MappedChannel, most: int) -> None:
        """Keep the channel of a client's map under a name; of more than ``most``, the oldest are forgotten.

        Raises:
            StorageError: the file could not be written.
        """
        save_arrays(
            self._channel(name), {part: getattr(channel, part) for part in MappedChannel.ARRAYS}, {}, mode=0o600
        )
        by_age = sorted(self.directory.glob("channels/*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        for path in by_age[:-most]:
            path.unlink(missing_ok=True)

    def load_channel(self, name: str) -> MappedChannel | None:
        """A channel by name; None if it was never told, or is forgotten.

        Raises:
            StorageError, InvalidInputError: the file is damaged.
        """
        path = self._channel(name)
        if not path.exists():
            return None
        arrays, _ = load_arrays(path)
        try:
            return MappedChannel(*(arrays[part] for part in MappedChannel.ARRAYS))
        except KeyError as error:
            raise StorageError(f"{path} is damaged; delete it") from error

    def _channel(self, name: str) -> Path:
        return self.directory / "channels" / f"{name}.safetensors"


def _digest(texts: tuple[str, ...]) -> str:
    return sha256(json.dumps(texts).encode()).hexdigest()
