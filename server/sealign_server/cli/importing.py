"""Files of identities to import, and the file of their tokens."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sealign.errors import InvalidInputError
from sealign.files import write_atomically
from sealign_server.ledger import Newcomer, new_token

_COLUMNS = ("identity", "days")
_DAY = 86400.0
_MAX_DAYS = 3660.0


def newcomers_of(file: Path, seconds: float, *, with_tokens: bool) -> list[Newcomer]:
    """Read identities from a CSV file or JSON lines.

    Args:
        file: ends in .csv or .jsonl.
        seconds: until a token expires whose line does not say.
        with_tokens: whether each gets a token.

    Raises:
        InvalidInputError: the file cannot be read, or a line is wrong, by its number.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInputError(f"Could not read {file}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise InvalidInputError(f"{file} is not UTF-8. Save it as UTF-8.") from None
    rows = {".csv": _csv, ".jsonl": _json_lines}.get(file.suffix.lower())
    if rows is None:
        raise InvalidInputError(f"{file} ends in neither .csv nor .jsonl. Rename it after what it holds.")
    found: list[Newcomer] = []
    seen: dict[str, int] = {}
    for line, row in rows(file, text):
        place = f"line {line} of {file}"
        if unknown := sorted(row.keys() - set(_COLUMNS)):
            raise InvalidInputError(f"{place} has {unknown[0]!r}, and an identity has only {' and '.join(_COLUMNS)}.")
        identity = row.get("identity")
        if not isinstance(identity, str) or not identity:
            raise InvalidInputError(f"{place} names no identity.")
        if identity in seen:
            raise InvalidInputError(f"{place} names an identity that line {seen[identity]} has named. Remove one.")
        seen[identity] = line
        valid = seconds if row.get("days") in (None, "") else _DAY * _days(row["days"], place)
        found.append(Newcomer(identity, new_token() if with_tokens else None, valid, place))
    if not found:
        raise InvalidInputError(f"{file} holds no identity.")
    return found


@contextmanager
def tokens_written(file: Path | None, newcomers: Sequence[Newcomer]) -> Iterator[None]:
    """Write tokens to a new file before they become valid inside; if they do not, the file goes again.

    Raises:
        InvalidInputError: there is such a file.
        StorageError: it cannot be written.
    """
    if file is None:
        yield
        return
    if file.exists():
        raise InvalidInputError(f"{file} exists already. Move it away, or name another file for the tokens.")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("identity", "token"))
    table.writerows((newcomer.identity, newcomer.token) for newcomer in newcomers)
    write_atomically(file, text.getvalue().encode())
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _csv(file: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if "identity" not in (table.fieldnames or ()):
        raise InvalidInputError(f"{file} has no column identity. Its first line names the columns: identity,days.")
    try:
        for row in table:
            if None in row or None in row.values():
                raise InvalidInputError(f"line {table.line_num} of {file} has another number of values than columns.")
            yield table.line_num, row
    except csv.Error as error:
        raise InvalidInputError(f"line {table.line_num} of {file} is no CSV: {error}.") from None


def _json_lines(file: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InvalidInputError(f"line {number} of {file} is no JSON object.")
        yield number, row


def _days(value: object, place: str) -> float:
    try:
        days = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except ValueError:
        days = -1.0
    if not 0 < days <= _MAX_DAYS:
        raise InvalidInputError(f"{place}: days is a number above 0, {_MAX_DAYS:g} at most.")
    return days
