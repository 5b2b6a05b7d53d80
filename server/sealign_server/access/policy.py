"""What each identity may do: tiers of permissions and budgets, from policy.toml or, without one, from settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sealign.app.settings import contents_of
from sealign.errors import InvalidInputError, NotPermittedError
from sealign.protocol import generation_task_of
from sealign_server.access.certificate_names import ANONYMOUS
from sealign_server.ledger import Budget

POLICY_FILE = "policy.toml"
ALL = "*"
BUILT_IN = "built-in"
_MAX_ROWS = 1 << 16


class AlignMode(str, Enum):
    """Ways of aligning."""

    PLAIN = "plain"
    ENCRYPTED = "encrypted"


class Tier(BaseModel):
    """What identities of one kind may do. What is not named is not allowed.

    Attributes:
        tasks: classification tasks by name, or "*".
        generation_tasks: generation tasks by name, or "*".
        align: modes of alignment.
        public_sets: beginnings of digests of sets to align over, or "*".
        register_maps: whether maps that the client applies may be registered.
        shared_examples: whether shared examples may be read, if the silo shares them.
        max_rows: rows of a request.
        rate: requests per second, over all worker processes of a replica; None for no limit.
        burst: requests at once, before the rate holds; None for one second's.
        precision: error of a logit that replies have at least; finer ones than the silo's are not to be had.
        generation_precision: the same of a token's logit.
        rows_per_hour, rows_per_day, rows_lifetime: per task, over all encoders; a generated token is one row.
        unlimited: whether there is no budget, which must be said.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tasks: list[str] = Field(default_factory=list)
    generation_tasks: list[str] = Field(default_factory=list)
    align: list[Annotated[AlignMode, Field(strict=False)]] = Field(default_factory=list)
    public_sets: list[str] = Field(default_factory=lambda: [ALL])
    register_maps: bool = False
    shared_examples: bool = False
    max_rows: int = Field(default=_MAX_ROWS, ge=1, le=_MAX_ROWS)
    rate: float | None = Field(default=None, gt=0, le=1e6)
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    precision: float | None = Field(default=None, gt=0, lt=1e6)
    generation_precision: float | None = Field(default=None, gt=0, lt=1e6)
    rows_per_hour: int | None = Field(default=None, ge=1)
    rows_per_day: int | None = Field(default=None, ge=1)
    rows_lifetime: int | None = Field(default=None, ge=1)
    unlimited: bool = False

    @property
    def budget(self) -> Budget:
        """Rows that may be computed for one task."""
        return Budget(self.rows_per_hour, self.rows_per_day, self.rows_lifetime)

    @property
    def most_at_once(self) -> int:
        """Requests that may come at once, before the rate holds."""
        return self.burst or max(1, ceil(self.rate or 0))

    @property
    def may_align(self) -> bool:
        """Whether any mode of alignment is allowed."""
        return bool(self.align)

    def allows_task(self, name: str) -> bool:
        """Return whether a classification task may be used."""
        return ALL in self.tasks or name in self.tasks

    def allows_generation(self, name: str) -> bool:
        """Return whether a generation task may be used."""
        return ALL in self.generation_tasks or name in self.generation_tasks

    def allows_space(self, name: str) -> bool:
        """Return whether a space may be seen; that of embeddings always may."""
        task = generation_task_of(name)
        return task is None or self.allows_generation(task)

    def allows_public_set(self, *digests: str) -> bool:
        """Return whether a set may be aligned over, by its digest or that of the set it was made of."""
        return any(start == ALL or digest.startswith(start) for start in self.public_sets for digest in digests)

    @model_validator(mode="after")
    def _says_how_much(self) -> Tier:
        has_budget = (self.rows_per_hour, self.rows_per_day, self.rows_lifetime) != (None, None, None)
        if self.burst is not None and self.rate is None:
            raise ValueError("burst says how many requests may come before a rate holds, and there is none; give rate")
        if has_budget and self.unlimited:
            raise ValueError("unlimited and a budget contradict each other; remove one of them")
        if (self.tasks or self.generation_tasks) and not has_budget and not self.unlimited:
            raise ValueError(
                "there is no budget, and d + 1 rows reveal a head; give rows_per_hour, rows_per_day or rows_lifetime, "
                "or say unlimited = true"
            )
        return self


class _Document(BaseModel):
    """policy.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    default: str | None = None
    anonymous: str | None = None
    tiers: dict[str, Tier]
    identities: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_tiers(self) -> _Document:
        named = {"default": self.default, "anonymous": self.anonymous}
        named |= {f"identities.{identity!r}": tier for identity, tier in self.identities.items()}
        for place, tier in named.items():
            if tier is not None and tier not in self.tiers:
                raise ValueError(f"{place} names tier {tier!r}; the tiers are: {', '.join(self.tiers) or 'none'}")
        shared = self.tiers.get(self.anonymous or "")
        if shared is not None and (shared.align or shared.register_maps or shared.shared_examples):
            raise ValueError(
                f"anonymous callers are one identity, and tier {self.anonymous!r} lets it align, register maps or read "
                "shared examples; give them a tier that does not"
            )
        if ANONYMOUS in self.identities:
            raise ValueError("identities names anonymous callers; use the key anonymous")
        return self


@dataclass(frozen=True)
class Policy:
    """Tiers, and which identity is in which.

    Attributes:
        tiers: by name.
        identities: name of the tier, by identity.
        default: tier of identities that are not listed; None refuses them.
        anonymous: tier of callers without an identity; None refuses them.
        digest: of the file; empty without one.
    """

    tiers: Mapping[str, Tier]
    identities: Mapping[str, str]
    default: str | None
    anonymous: str | None
    digest: str = ""

    @classmethod
    def built_in(cls, rows_per_day: int | None) -> Policy:
        """Return the policy of a silo without policy.toml: who has a name may do everything, others query alone."""
        budget: dict[str, Any] = {"rows_per_day": rows_per_day, "unlimited": rows_per_day is None}
        query = {"tasks": [ALL], "generation_tasks": [ALL], **budget}
        known = Tier(align=list(AlignMode), register_maps=True, shared_examples=True, **query)
        return cls({BUILT_IN: known, ANONYMOUS: Tier(**query)}, {}, BUILT_IN, ANONYMOUS)

    @classmethod
    def load(cls, file: Path) -> Policy:
        """Read a policy.

        Raises:
            InvalidInputError: the file cannot be read, or a key is unknown, missing or wrong, by name.
        """
        try:
            document = _Document.model_validate(contents_of(file))
            digest = sha256(file.read_bytes()).hexdigest()
        except ValidationError as error:
            faults = " ".join(_described(fault) for fault in error.errors(include_url=False))
            raise InvalidInputError(f"The policy {file} cannot be used. {faults}") from None
        except OSError as error:
            raise InvalidInputError(f"Could not read the policy {file}: {error.strerror}.") from error
        return cls(document.tiers, document.identities, document.default, document.anonymous, digest)

    def tier_name(self, identity: str) -> str | None:
        """Return the name of an identity's tier; None for an identity that may do nothing."""
        if identity == ANONYMOUS:
            return self.anonymous
        return self.identities.get(identity, self.default)

    def tier_of(self, identity: str) -> Tier:
        """Return an identity's tier.

        Raises:
            NotPermittedError: it has none.
        """
        name = self.tier_name(identity)
        if name is None:
            raise NotPermittedError(
                "the silo's policy has no tier for this identity; ask the silo's operator to add it to policy.toml"
            )
        return self.tiers[name]

    def budget_of(self, identity: str) -> Budget:
        """Return an identity's budget for one task; no limit for one without a tier, which gets nothing anyway."""
        name = self.tier_name(identity)
        return Budget() if name is None else self.tiers[name].budget


def _described(fault: Mapping[str, Any]) -> str:
    """Return one sentence about what is wrong with a key."""
    place: Sequence[str] = [str(part) for part in fault["loc"]]
    message = str(fault["msg"]).removeprefix("Value error, ").rstrip(".")
    if fault["type"] == "extra_forbidden":
        known = Tier.model_fields if len(place) == 3 and place[0] == "tiers" else _Document.model_fields
        near = get_close_matches(place[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the keys are: {', '.join(known)}."
        return f"There is no key {'.'.join(place)}: {hint}"
    return ": ".join(filter(None, (".".join(place), message))) + "."
