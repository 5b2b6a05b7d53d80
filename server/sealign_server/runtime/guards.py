"""What stands between callers and a silo, from its settings."""

from __future__ import annotations

from pathlib import Path

from sealign.errors import InvalidInputError, NotFoundError
from sealign_server.access import Buckets, Identities, Policies, Policy, Rates, TrustedProxies
from sealign_server.ledger import IdentityRegister, Ledger, Usage
from sealign_server.observe import Metrics, SiloState, TraceLayer
from sealign_server.rpc.server import Guards
from sealign_server.serving.silo import map_qualities
from sealign_server.settings import ServeSettings
from sealign_server.store import AuditTrail, SiloStore


def policies_of(store: SiloStore, settings: ServeSettings) -> Policies:
    """Return the policy of a silo.

    Raises:
        NotFoundError: the policy that settings name is missing.
        InvalidInputError: it cannot be used, or a budget is given beside it.
    """
    file = settings.policy or store.policy_path
    if settings.policy is not None and not file.exists():
        raise NotFoundError(f"There is no policy {file}. Check the path.")
    if file.exists() and settings.max_rows_per_day is not None:
        raise InvalidInputError(
            f"max_rows_per_day and the policy {file} both give budgets. Remove max_rows_per_day, and give rows_per_day "
            "in the tiers of the policy."
        )
    return Policies(file, Policy.built_in(settings.max_rows_per_day))


def guards_of(store: SiloStore, ledger: Ledger, settings: ServeSettings, buckets: Path) -> Guards:
    """Return what a process puts before the silo that it serves; ``buckets`` is the file of `shared_buckets`.

    Raises:
        NotFoundError, InvalidInputError: the policy cannot be used.
    """
    identities = Identities(
        IdentityRegister(ledger),
        accepts_tokens=settings.tokens,
        allows_anonymous=settings.allows_anonymous,
        proxies=TrustedProxies(settings.trusted_proxies),
    )
    identities.refresh()
    policies = policies_of(store, settings)
    return Guards(
        ledger=ledger,
        trail=AuditTrail(store.audit_path, store.signing, settings.audit_file_mb << 20),
        keys=store.signing,
        identities=identities,
        policies=policies,
        rates=Rates(policies, Buckets(buckets)),
        metrics=None if settings.metrics_listen is None else Metrics(),
        traces=None if settings.otlp_endpoint is None else TraceLayer(settings.otlp_endpoint),
    )


def state_of(store: SiloStore, ledger: Ledger, policies: Policies) -> SiloState:
    """Return what metrics say of the silo's state."""

    def budgets() -> dict[str, float]:
        policies.reload()
        lowest: dict[str, float] = {}
        for spent in Usage(ledger).spent():
            left = spent.left(policies.current.budget_of(spent.identity))
            lowest[spent.task] = min(left, lowest.get(spent.task, 1.0))
        return lowest

    return SiloState(budgets, lambda: map_qualities(store))
