"""``sealign-server doctor``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealign.app.options import with_options
from sealign_server.cli.arguments import AsJson, Directory
from sealign_server.settings import ServeSettings, ServingOptions, serve_settings

if TYPE_CHECKING:
    from sealign.alignment import AffineMap
    from sealign.app.checkup import Checkup
    from sealign_server.store import MapRecord, SiloStore, SpaceStore

_PACKAGES = ("tenseal", "grpcio", "numpy", "sqlalchemy")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


@with_options(ServeSettings)
def doctor(
    directory: Directory,
    given: dict[str, Any],
    with_encoder: Annotated[
        bool, typer.Option("--with-encoder", help="Also load the silo's encoder and try it on fixed texts.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check versions, settings, certificates, the store, the ledger, tasks, public sets and maps; say what to mend.

    Give the options of serve. It can run beside a silo that serves. Exit status: 0 if nothing is wrong, 1 otherwise.
    """
    from sealign.app.checkup import Checkup, check_authority, check_certificate, check_versions
    from sealign_server.store import SiloStore

    checkup = Checkup()
    check_versions(checkup, _PACKAGES)
    settings = checkup.attempt("settings", lambda: serve_settings(directory, given))
    if settings is not None:
        checkup.ok("settings", f"listens on {settings.listen}")
        check_certificate(checkup, "certificate", settings.tls_cert, settings.tls_key)
        if settings.tls_client_ca is not None:
            check_authority(checkup, "clients' authority", settings.tls_client_ca)
    store = checkup.attempt("store", lambda: SiloStore(directory))
    if store is not None:
        _check_store(checkup, store)
        _check_ledger(checkup, store, None if settings is None else settings.ledger)
        options = ServingOptions() if settings is None else settings.serving()
        _check_audit(checkup, store)
        _check_classification(checkup, store, options)
        _check_generation(checkup, store)
        if with_encoder:
            _check_encoder(checkup, store)
    checkup.report(as_json)


def _check_store(checkup: Checkup, store: SiloStore) -> None:
    files = [path for path in (store.directory, *store.directory.rglob("*")) if not path.name.endswith(".tmp")]
    unwritable = [path for path in files if path.is_dir() and not os.access(path, os.W_OK | os.X_OK)]
    unreadable = [path for path in files if not os.access(path, os.R_OK)]
    open_to_others = [path for path in files if _mode(path) & 0o077 and _is_private(store.directory, path)]
    if unwritable or unreadable:
        bad = (unwritable + unreadable)[0]
        checkup.fail("store", f"{bad} cannot be used by this user", "change its owner: chown -R")
    if open_to_others:
        checkup.fail(
            "store",
            f"others can open {len(open_to_others)} files and directories, such as {open_to_others[0]}",
            f"run chmod -R go-rwx {store.directory}",
        )
    if not (unwritable or unreadable or open_to_others):
        size = sum(path.stat().st_size for path in files if path.is_file()) / 1e6
        checkup.ok("store", f"silo {store.document.name}, {len(files)} files, {size:.0f} MB")


def _mode(path: Path) -> int:
    return path.stat().st_mode if path.exists() else 0


def _is_private(directory: Path, path: Path) -> bool:
    """Settings may be anybody's to read; in a private directory, what a file says of itself does not matter."""
    return path == directory or (path.name != "silo.toml" and bool(_mode(directory) & 0o077))


def _check_ledger(checkup: Checkup, store: SiloStore, url: str | None) -> None:
    from sealign_server.cli.ledgers import opened_ledger
    from sealign_server.ledger import Releases, Usage

    ledger = checkup.attempt("ledger", lambda: opened_ledger(store, url))
    if ledger is None:
        return
    rows = checkup.attempt("ledger", lambda: sum(row[3] for row in Usage(ledger).totals()))
    releases = checkup.attempt("ledger", lambda: len(Releases(ledger).all()))
    if rows is not None and releases is not None:
        checkup.ok("ledger", f"{rows} rows and {releases} releases are counted")


def _check_audit(checkup: Checkup, store: SiloStore) -> None:
    from sealign_server.store import verify_audit

    key = checkup.attempt("signing key", lambda: store.signing.public)
    if key is None:
        return
    checkup.ok("signing key", f"{key.hex()}, which clients pin")
    if not store.audit_path.exists():
        checkup.ok("audit trail", "holds no record yet")
        return
    verified = checkup.attempt("audit trail", lambda: verify_audit(store.audit_path, store.signing.known()))
    if verified is not None:
        checkup.ok("audit trail", f"{verified.records} records, each bound to the one before")


def _check_classification(checkup: Checkup, store: SiloStore, options: ServingOptions) -> None:
    """Check every task, and that it can be planned for the silo's own embeddings; then the space's files."""
    from sealign_server.serving.served_tasks import LoadedTask, unservable

    for name in store.tasks.names():
        stored = checkup.attempt(f"task {name}", lambda name=name: store.tasks.load(name))  # type: ignore[misc]
        if stored is None:
            continue
        dimension = store.document.encoder_card.dimension
        if stored.trained.head.dimension != dimension:
            checkup.fail(
                f"task {name}",
                f"its head takes {stored.trained.head.dimension} dimensions, not {dimension}",
                "train it",
            )
            continue
        reason = unservable(LoadedTask.load(name, "", stored), options)
        if reason is not None:
            checkup.fail(f"task {name}", reason, "train it again, or serve with another precision")
        else:
            accuracy = stored.trained.held_out_accuracy
            checkup.ok(f"task {name}", f"{len(stored.trained.head.labels)} labels, held-out accuracy {accuracy:.3f}")
    if not store.tasks.names() and not store.generation.names():
        checkup.warn("tasks", "there are none: nothing can be asked", "run sealign-server train or generation add")
    _check_space(checkup, "embeddings", store.space)


def _check_generation(checkup: Checkup, store: SiloStore) -> None:
    for name in store.generation.names():
        subject = f"generation {name}"
        head = checkup.attempt(subject, lambda name=name: store.generation.load_head(name))  # type: ignore[misc]
        tokenizer = checkup.attempt(subject, lambda name=name: store.generation.tokenizer(name))  # type: ignore[misc]
        if head is not None and tokenizer is not None:
            checkup.ok(subject, f"vocabulary {store.generation.document(name).vocabulary}")
            _check_space(checkup, subject, store.generation.space(name))


def _load_map(space: SpaceStore, record: MapRecord) -> AffineMap:
    """Load a map, and read the client's rows that it was learned from, where they were kept."""
    learned = space.load_map(record.identity, record.card.id)
    space.map_rows(record.identity, learned)
    return learned


def _check_space(checkup: Checkup, subject: str, space: SpaceStore) -> None:
    """Check the files of public sets and maps."""
    cards = checkup.attempt(subject, space.public_sets)
    for card in cards or ():
        checkup.attempt(subject, lambda card=card: space.load_public_set(card.digest))  # type: ignore[misc]
    if cards is not None and not cards:
        checkup.warn(subject, "there is no public set: nobody can align", "give --public to init or generation add")
    records = space.map_records()
    usable = [
        record
        for record in records
        if checkup.attempt(subject, lambda record=record: _load_map(space, record)) is not None  # type: ignore[misc]
    ]
    checkup.ok(subject, f"{len(cards or ())} public sets, {len(usable)} of {len(records)} maps can be read")


def _check_encoder(checkup: Checkup, store: SiloStore) -> None:
    from sealign.encoders import check_encoder
    from sealign_server.training.embedding import silo_encoder

    encoder = checkup.attempt("encoder", lambda: silo_encoder(store))
    if encoder is not None:
        checkup.add("encoder", *check_encoder(encoder))
