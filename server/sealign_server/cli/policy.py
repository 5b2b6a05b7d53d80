"""Commands about what identities may do and have had: policy check, policy explain, exposure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealign_server.cli.arguments import AsJson, Directory
from sealign_server.cli.ledgers import LedgerUrl, opened_ledger

if TYPE_CHECKING:
    from sealign_server.access import Policy
    from sealign_server.ledger import Spent
    from sealign_server.store import SiloStore, SpaceStore

policy = typer.Typer(help="Tiers: who may do what, and how much.", no_args_is_help=True, rich_markup_mode=None)

PolicyPath = Annotated[
    Path | None,
    typer.Option(
        "--policy", envvar="SEALIGN_SILO_POLICY", help="File of the policy; by default policy.toml in the directory."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(policy, name="policy")
    app.command()(exposure)


@policy.command("check")
def check(directory: Directory, file: PolicyPath = None) -> None:
    """Check a policy as a whole, and say what it names that the silo does not have."""
    from sealign_server.store import SiloStore

    store = SiloStore(directory)
    found = _policy(store, file, needed=True)
    typer.echo(f"{len(found.tiers)} tiers, {len(found.identities)} identities; others: {found.default or 'refused'}")
    for warning in _warnings(store, found):
        typer.echo(f"warning: {warning}", err=True)


@policy.command("explain")
def explain(
    directory: Directory,
    identity: Annotated[str, typer.Argument(help='As the silo records it; "anonymous" for callers without one.')],
    file: PolicyPath = None,
    ledger: LedgerUrl = None,
) -> None:
    """Show as JSON what an identity may do, and what it has left."""
    from sealign_server.ledger import IdentityRegister, Usage
    from sealign_server.store import SiloStore

    store = SiloStore(directory)
    found, counted = _policy(store, file), opened_ledger(store, ledger)
    name = found.tier_name(identity)
    revoked = {facts.identity for facts in IdentityRegister(counted).all() if facts.revoked is not None}
    facts: dict[str, Any] = {"identity": identity, "tier": name, "revoked": identity in revoked}
    if name is not None:
        tier = found.tiers[name]
        facts["may"] = tier.model_dump(mode="json")
        facts["tasks"] = [task for task in store.tasks.names() if tier.allows_task(task)]
        facts["generation_tasks"] = [task for task in store.generation.names() if tier.allows_generation(task)]
        facts["used"] = [
            {"task": s.task, "hour": s.hour, "day": s.day, "lifetime": s.lifetime, "left": s.left(tier.budget)}
            for s in Usage(counted).spent()
            if s.identity == identity
        ]
    typer.echo(json.dumps(facts, indent=2))


def exposure(directory: Directory, as_json: AsJson = False, ledger: LedgerUrl = None) -> None:
    """Show how many rows each identity has had of each head, against the d + 1 that reveal it.

    The dimension d is the smallest of the encoders that the identity may use. The cosine is that of the weights that
    an extractor could have by now with the true ones, if it knows nothing of them.
    """
    from sealign.app.terminal import print_table
    from sealign_server.ledger import Usage
    from sealign_server.store import SiloStore

    store = SiloStore(directory)
    rows = [_exposed(store, spent) for spent in Usage(opened_ledger(store, ledger)).spent() if spent.lifetime > 0]
    rows.sort(key=lambda row: -(row["ratio"] or 0.0))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        cells = [
            ["unknown" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()]
            for row in rows
        ]
        print_table([name.replace("_", " ") for name in rows[0]], cells)
    else:
        typer.echo("none")


def _exposed(store: SiloStore, spent: Spent) -> dict[str, Any]:
    from sealign.errors import NotFoundError, StorageError
    from sealign.protocol import generation_task_of
    from sealign_server.access.extraction import extracted_cosine

    task = generation_task_of(spent.task)
    try:
        dimension = _dimension(store.space if task is None else store.generation.space(task), spent.identity)
    except (NotFoundError, StorageError):  # of a task that was removed
        return {"identity": spent.identity, "task": spent.task, "rows": spent.lifetime, **_UNKNOWN}
    return {
        "identity": spent.identity,
        "task": spent.task,
        "rows": spent.lifetime,
        "revealing": dimension + 1,
        "ratio": spent.lifetime / (dimension + 1),
        "cosine": extracted_cosine(spent.lifetime, dimension),
    }


def _dimension(space: SpaceStore, identity: str) -> int:
    """Return the smallest dimension of rows that an identity may send: of its encoders behind maps, or the silo's."""
    from sealign_server.store import OPERATOR

    usable = [record for record in space.map_records() if record.identity in (identity, OPERATOR)]
    mapped = [len(space.load_map(record.identity, record.card.id).weight) for record in usable]
    return min([space.encoder.dimension, *mapped])


_UNKNOWN = {"revealing": None, "ratio": None, "cosine": None}


def _policy(store: SiloStore, file: Path | None, *, needed: bool = False) -> Policy:
    """Return the policy of a file or, unless one is needed, the built-in one."""
    from sealign_server.access import Policy

    chosen = file or store.policy_path
    if chosen.exists() or file is not None or needed:
        return Policy.load(chosen)
    return Policy.built_in(None)


def _warnings(store: SiloStore, found: Policy) -> Iterator[str]:
    held = {card.digest for card in store.space.public_sets()}
    for name in store.generation.names():
        held |= {card.digest for card in store.generation.space(name).public_sets()}
    for tier_name, tier in found.tiers.items():
        if tier_name not in {found.default, found.anonymous, *found.identities.values()}:
            yield f"nobody is in tier {tier_name}"
        for kind, named, known in (
            ("task", tier.tasks, store.tasks.names()),
            ("generation task", tier.generation_tasks, store.generation.names()),
        ):
            for task in named:
                if task not in ("*", *known):
                    yield f"tier {tier_name} names {kind} {task!r}, which the silo does not have"
        for start in tier.public_sets:
            if start != "*" and not any(digest.startswith(start) for digest in held):
                yield f"tier {tier_name} names public set {start!r}, which the silo does not hold"
