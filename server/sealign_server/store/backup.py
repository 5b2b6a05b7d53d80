"""A silo's directory as one file, made while the silo serves, and back.

Files of a silo are replaced as a whole or not at all, and the file that makes a thing (a card, `current`) is written
last. The backup takes such files first, so that what they name was there; it looks whether it was there still. Files
of the audit trail are appended to: of them, it takes what there is at the moment. The ledger comes last: it then counts
every release that is in the backup.

The file is a tar archive whose last member names every other by its SHA-256.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.files.atomic import PRIVATE, replacing
from sealign_server.store.files import private_directory
from sealign_server.store.fitted import HEADS
from sealign_server.store.silo import SiloStore

_FORMAT = "sealign.backup/1"
_MANIFEST = "backup.json"
_LEDGER = "ledger.sqlite"
_ATTEMPTS = 10
_MAX_MANIFEST = 64 << 20


class _ChangedError(Exception):
    """What a file names was removed before it could be copied."""


def back_up(store: SiloStore, target: Path, copy_ledger: Callable[[Path], None]) -> int:
    """Write a backup of a silo, which may be serving, and return the number of files in it.

    Args:
        store: the silo.
        target: file to write, or to replace; mode 0600.
        copy_ledger: writes a copy of the ledger to a file, or nothing where it is empty or elsewhere.

    Raises:
        StorageError: a file could not be read or written, or the silo changes faster than it can be copied.
    """
    for _ in range(_ATTEMPTS):
        with suppress(_ChangedError), replacing(target, PRIVATE) as stream:
            return _write(store.directory, stream, copy_ledger, target)
    raise StorageError(f"{store.directory} changes faster than it can be backed up; stop training, then try again")


def restore(source: Path, directory: Path) -> SiloStore:
    """Make a silo of a backup in a new directory; it is there whole or not at all.

    Raises:
        InvalidInputError: the directory exists, or the file is no backup, is damaged or cut off.
        NotFoundError: there is no such file.
        StorageError: the directory could not be written.
    """
    if directory.exists():
        raise InvalidInputError(f"{directory} exists already; choose another directory")
    unpacked = directory.with_name(f".{directory.name}.restoring")
    try:
        shutil.rmtree(unpacked, ignore_errors=True)
        _unpack(source, private_directory(unpacked))
        SiloStore(unpacked)
        unpacked.replace(directory)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {source}; check the path") from error
    except (tarfile.TarError, EOFError, ValueError, KeyError) as error:
        raise InvalidInputError(f"{source} is no backup of a silo, or damaged ({error}); take another copy") from None
    except OSError as error:
        raise StorageError(f"could not restore to {directory}: {error.strerror}") from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return SiloStore(directory)


def _write(directory: Path, stream: IO[bytes], copy_ledger: Callable[[Path], None], target: Path) -> int:
    digests: dict[str, str] = {}
    versions: dict[str, str] = {}
    copied_ledger = target.with_name(f".{target.name}.ledger.tmp")
    with tarfile.open(fileobj=stream, mode="w") as archive:
        segments = _segments(directory)
        for path in _files(directory):
            name = path.relative_to(directory).as_posix()
            try:
                with path.open("rb") as content:
                    digests[name] = _add(archive, name, content)
                    if path.name == "current":  # the same file, whatever has taken its place meanwhile
                        content.seek(0)
                        versions[name] = content.read().decode("ascii")
            except FileNotFoundError:
                continue  # removed meanwhile; whether something names it is looked at below
        _require_whole(digests, versions)
        if segments != _segments(directory):  # the newest records have moved to a file of their own
            raise _ChangedError
        try:
            copied_ledger.unlink(missing_ok=True)
            copy_ledger(copied_ledger)
            if copied_ledger.exists():
                with copied_ledger.open("rb") as content:
                    digests[_LEDGER] = _add(archive, _LEDGER, content)
        finally:
            copied_ledger.unlink(missing_ok=True)
        manifest = json.dumps({"format": _FORMAT, "files": digests}).encode()
        entry = tarfile.TarInfo(_MANIFEST)
        entry.size, entry.mtime = len(manifest), int(time.time())
        archive.addfile(entry, io.BytesIO(manifest))
    return len(digests)


def _segments(directory: Path) -> set[str]:
    return {path.name for path in (directory / "audit").glob("*.jsonl")}


def _files(directory: Path) -> Iterator[Path]:
    """Yield the files to keep, those that make a thing first."""
    found = []
    for path in directory.rglob("*"):
        inside = path.relative_to(directory).parts
        is_temporary = path.name.endswith(".tmp") or path.name == "lock" or path.name.startswith(_LEDGER)
        if path.is_file() and not is_temporary and not _is_cache(inside):
            found.append(path)
    yield from sorted(found, key=lambda path: (path.suffix != ".json" and path.name != "current", path))


def _is_cache(inside: tuple[str, ...]) -> bool:
    """Return whether a file holds what is computed again when it is needed. Tasks may have any name."""
    return inside[0] == "embedded" or HEADS in inside or (inside[0], inside[2:3]) == ("generation", ("weights",))


def _add(archive: tarfile.TarFile, name: str, content: BinaryIO) -> str:
    entry, digest = archive.gettarinfo(arcname=name, fileobj=content), sha256()
    left = entry.size
    while left and (piece := content.read(min(left, 1 << 20))):
        digest.update(piece)
        left -= len(piece)
    content.seek(0)
    archive.addfile(entry, content)
    return digest.hexdigest()


def _require_whole(digests: dict[str, str], versions: dict[str, str]) -> None:
    """Look whether what cards and `current` need is in the backup."""
    for name in digests:
        path = PurePosixPath(name)
        needed = []
        if path.suffix == ".json" and (path.parent.name == "public" or "maps" in path.parts[:-1]):
            states = path.with_suffix(".states")
            needed = [states if str(states) in digests else path.with_suffix(".safetensors")]
        elif path.name == "task.json":
            needed = [path.with_name("head.safetensors")]
        elif path.name == "generation.json":
            needed = [path.with_name("head.safetensors"), path.with_name("tokenizer.json")]
        elif path.name == "current":
            needed = [path.parent / versions[name] / "task.json"]
        if any(str(other) not in digests for other in needed):
            raise _ChangedError


def _unpack(source: Path, directory: Path) -> None:
    digests: dict[str, str] = {}
    manifest = None
    with tarfile.open(source, "r:") as archive:
        for entry in archive:
            content = archive.extractfile(entry) if entry.isfile() else None
            if content is None or manifest is not None:
                raise ValueError(f"{entry.name[:64]!r} does not belong there")
            if entry.name == _MANIFEST:
                manifest = json.loads(content.read(_MAX_MANIFEST))
            else:
                digests[entry.name] = _extract(content, _inside(directory, entry.name), entry.mtime)
    if manifest is None or manifest["format"] != _FORMAT:
        raise ValueError("its end is missing")
    if manifest["files"] != digests:
        raise ValueError("its files are not those that it lists")


def _inside(directory: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name:
        raise ValueError(f"{name[:64]!r} is no name inside a silo")
    return directory.joinpath(*parts)


def _extract(content: IO[bytes], path: Path, modified: float) -> str:
    """Write a file and return its SHA-256. Its time is kept: the oldest maps are evicted first."""
    private_directory(path.parent)
    digest = sha256()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb") as out:
        for piece in iter(lambda: content.read(1 << 20), b""):
            digest.update(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    os.utime(path, (modified, modified))
    return digest.hexdigest()
