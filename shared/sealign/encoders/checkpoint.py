"""The files of a model: a local directory, or a repository on the hub."""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from sealign.encoders.encoder import one_line
from sealign.encoders.hub import hub_fault
from sealign.encoders.settings import EncoderSettings
from sealign.errors import InvalidInputError

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order in which transformers looks for them."""

_FILES = (".bin", ".gguf", ".json", ".model", ".safetensors", ".txt")

Contents = Iterator[tuple[str, "bytes | memoryview"]]


class Checkpoint:
    """Reads the files of one model by their names.

    Attributes:
        model: the directory or the hub name, as given.
        local: whether it is a directory.
        offline: whether only files that are on this machine are read.
        revision: the commit on the hub.
        name: for people: of a directory, its last part.

    Raises:
        InvalidInputError: nothing is named, a path that is not a directory, or what this user cannot read.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        if not settings.model:
            raise InvalidInputError(
                "the transformers model is not named; give its hub name or directory, for example "
                "transformers:sentence-transformers/all-MiniLM-L6-v2"
            )
        self.model = settings.model
        self._require_readable(Path(self.model))
        self.local = Path(self.model).is_dir()
        if not self.local and _is_path(self.model):
            raise InvalidInputError(
                f"could not load the transformers model {self.model!r}: there is no such directory; check the path"
            )
        name = Path(self.model).resolve().name if self.local else self.model
        self.name = name if settings.gguf_file is None else f"{name}/{settings.gguf_file}"
        self.offline = self.local or hub_fault() is not None
        self.revision = "main" if self.local else self._commit(settings)

    def _require_readable(self, directory: Path) -> None:
        """Refuse what is there and cannot be read: libraries would call it missing or damaged."""
        closed = next((parent for parent in reversed(directory.parents) if _is_closed(parent, os.X_OK)), None)
        if closed is None and _is_closed(directory, os.R_OK | os.X_OK):
            closed = directory
        if closed is None and directory.is_dir():
            files = (path for path in [*directory.glob("*"), *directory.glob("[!.]*/*")] if path.suffix in _FILES)
            closed = next((path for path in sorted(files) if _is_closed(path, os.R_OK)), None)
        if closed is not None:
            opened = f"a+rX {closed}" if closed in directory.parents else f"-R a+rX {directory}"
            raise self.refusal(
                f"{closed} is there, and this user may not read it. Change its owner, or run chmod {opened}"
            )

    def path(self, name: str, *, certain: bool = False) -> Path | None:
        """Where a file lies, fetched from the hub if need be; None if the model has no such file.

        Args:
            name: relative to the model's top, with slashes.
            certain: refuse where the hub cannot be asked whether there is one, instead of taking it as missing.

        Raises:
            InvalidInputError: the hub fails.
        """
        if self.local:
            path = Path(self.model, *PurePosixPath(name).parts)
            return path if path.is_file() else None
        known = try_to_load_from_cache(self.model, name, revision=self.revision)
        if known is _CACHED_NO_EXIST:
            return None
        with suppress(EntryNotFoundError), self._asking_the_hub(certain):
            return self._fetched(name, self.revision)
        return None

    def _fetched(self, name: str, revision: str | None) -> Path:
        return Path(hf_hub_download(self.model, name, revision=revision, local_files_only=self.offline))

    @contextmanager
    def _asking_the_hub(self, certain: bool = True) -> Iterator[None]:
        try:
            yield
        except LocalEntryNotFoundError as error:
            if not certain:
                raise
            raise self.refusal(
                f"it is not on this machine, and {hub_fault() or 'the hub fails. Try again'}, or download the whole "
                "repository and name its directory"
            ) from error
        except EntryNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise self.refusal(f"{one_line(error)}; check its name and revision") from error

    def _commit(self, settings: EncoderSettings) -> str:
        """The commit that the revision names now: all files are read from this one."""
        for name in (settings.gguf_file or "config.json", "modules.json"):
            with suppress(EntryNotFoundError), self._asking_the_hub():
                return self._fetched(name, settings.revision).parent.name
        raise self.refusal("the repository holds no model: there is no config.json; check its name")

    def read_json(self, name: str) -> Any:
        """The content of a JSON file; None if the model has no such file.

        Raises:
            InvalidInputError: it cannot be read, or is not JSON.
        """
        path = self.path(name)
        if path is None:
            return None
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise self.refusal(f"{name} is not JSON ({one_line(error)}); restore the file") from error

    def refusal(self, what: str) -> InvalidInputError:
        """An error about this model."""
        return InvalidInputError(f"could not load the transformers model {self.model!r}: {what}")

    def weights(self, folder: str = "") -> Contents:
        """Yield every stored tensor's name, type and shape, with its bytes, sorted by name.

        The division into files, and the format of the files, make no difference.

        Raises:
            InvalidInputError: there are no weights, or they are damaged.
        """
        prefix = f"{folder}/" if folder else ""
        found = next((name for name in _WEIGHTS if self.path(prefix + name) is not None), None)
        if found is None:
            raise self.refusal(f"there is neither {prefix}model.safetensors nor {prefix}pytorch_model.bin; restore it")
        names = [found]
        if found.endswith(".index.json"):
            names = sorted(set(self.read_json(prefix + found)["weight_map"].values()))
        tensors: dict[str, bytes | memoryview] = {}
        for name in names:
            path = self.path(prefix + name)
            if path is None:
                raise self.refusal(f"the file {prefix + name} is missing; restore it")
            tensors.update(_safetensors(path) if name.endswith(".safetensors") else _pickled(path))
        yield from sorted(tensors.items())


def _is_closed(path: Path, mode: int) -> bool:
    """Return whether something is there that this user may not use so."""
    effective = os.access in os.supports_effective_ids
    try:
        return path.exists() and not os.access(path, mode, effective_ids=effective)
    except PermissionError:  # of a directory above, which is named instead
        return False


def _is_path(model: str) -> bool:
    return model.startswith((".", "/", "~", "\\")) or model.count("/") > 1 or "\\" in model or model.endswith("/")


def _safetensors(path: Path) -> dict[str, bytes | memoryview]:
    """Tensors of a safetensors file by a line that describes them, mapped into memory."""
    with path.open("rb") as stream:
        content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(bytes(content[8 : 8 + length]))
    header.pop("__metadata__", None)
    data = content[8 + length :]
    return {
        _described(name, entry["dtype"], entry["shape"]): data[slice(*entry["data_offsets"])]
        for name, entry in header.items()
    }


def _pickled(path: Path) -> dict[str, bytes | memoryview]:
    """The same of a file that torch saved, read without running any code."""
    import torch

    tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    kinds = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
    return {
        _described(name, kinds.get(tensor.dtype, str(tensor.dtype)), list(tensor.shape)): memoryview(
            tensor.contiguous().flatten().view(torch.uint8).numpy()
        )
        for name, tensor in tensors.items()
    }


def _described(name: str, kind: str, shape: list[int]) -> str:
    return f"weight {name} {kind} {list(shape)}"
