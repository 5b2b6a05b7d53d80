"""policy.toml: validated whole, and what identities may do by it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sealign.errors import InvalidInputError, NotFoundError, NotPermittedError
from sealign_server.access import ANONYMOUS, AlignMode, Policies, Policy
from sealign_server.access.extraction import extracted_cosine
from sealign_server.cli import app
from sealign_server.ledger import Budget, IdentityRegister, Ledger, Usage, UsageKey
from sealign_server.runtime.guards import policies_of
from sealign_server.settings import ServeSettings
from sealign_server.store import SiloStore

GOOD = """
default = "guest"

[tiers.partner]
tasks = ["colours"]
generation_tasks = ["*"]
align = ["encrypted"]
public_sets = ["dddd"]
register_maps = true
max_rows = 32
rate = 5
precision = 0.0625
rows_per_day = 1000
rows_lifetime = 5000

[tiers.guest]
tasks = ["*"]
rows_per_hour = 10

[identities]
"CN=alice" = "partner"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)
    return path


def test_tiers_allow_what_they_name_and_nothing_else(file: Path) -> None:
    policy = Policy.load(file)
    partner, guest = policy.tier_of("CN=alice"), policy.tier_of("CN=bob")
    assert partner.allows_task("colours")
    assert not partner.allows_task("topics")
    assert partner.allows_generation("anything")
    assert partner.align == [AlignMode.ENCRYPTED]
    assert partner.allows_public_set("d" * 64)
    assert partner.allows_public_set("e" * 64, "d" * 64)
    assert not partner.allows_public_set("e" * 64)
    assert partner.budget == Budget(day=1000, lifetime=5000)
    assert guest.allows_task("topics")
    assert not guest.allows_generation("anything")
    assert guest.allows_space("embeddings")
    assert not guest.allows_space("generation/anything")
    assert (guest.may_align, guest.register_maps, guest.shared_examples) == (False, False, False)
    with pytest.raises(NotPermittedError, match="no tier"):
        policy.tier_of(ANONYMOUS)


def test_without_a_file_who_has_a_name_may_do_everything(file: Path) -> None:
    policy = Policy.built_in(7)
    known, anonymous = policy.tier_of("CN=anybody"), policy.tier_of(ANONYMOUS)
    assert (known.may_align, known.register_maps, known.budget) == (True, True, Budget(day=7))
    assert (anonymous.may_align, anonymous.register_maps, anonymous.shared_examples) == (False, False, False)
    assert anonymous.allows_task("any")
    assert anonymous.budget == Budget(day=7)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("rows_per_day", "rows_per_dya"), "no key tiers.partner.rows_per_dya: did you mean rows_per_day?"),
        (("default =", "fallback ="), "There is no key fallback"),
        (('"guest"\n', '"gost"\n'), "default names tier 'gost'; the tiers are: partner, guest"),
        (('= "partner"', '= "partners"'), "identities.'CN=alice' names tier 'partners'"),
        (('"encrypted"', '"secret"'), "tiers.partner.align.0: Input should be 'plain' or 'encrypted'"),
        (("max_rows = 32", 'max_rows = "32"'), "tiers.partner.max_rows: Input should be a valid integer"),
        (("rows_per_hour = 10", "rows_per_hour = 0"), "greater than or equal to 1"),
        (("rows_per_hour = 10", ""), "tiers.guest: there is no budget"),
        (("rows_per_hour = 10", "rows_per_hour = 10\nunlimited = true"), "contradict"),
        (("default =", 'anonymous = "partner"\ndefault ='), "anonymous callers are one identity"),
        (('"CN=alice" = "partner"', 'anonymous = "guest"'), "use the key anonymous"),
        (("rows_per_hour = 10", "rows_per_hour = 10\nburst = 5"), "tiers.guest: burst says how many requests"),
        (("rows_per_hour = 10", "rows_per_hour = 10\nrate = 0"), "tiers.guest.rate: Input should be greater than 0"),
        (("rows_per_hour = 10", 'rows_per_hour = 10\nprecision = "low"'), "tiers.guest.precision: Input should be"),
        (("[tiers.partner]", "[tiers.partner"), "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(file: Path, change: tuple[str, str], says: str) -> None:
    assert change[0] in GOOD
    file.write_text(GOOD.replace(*change, 1))
    with pytest.raises(InvalidInputError, match=re.escape(says)) as caught:
        Policy.load(file)
    assert str(file) in str(caught.value)


def test_all_that_is_wrong_is_named_at_once(file: Path) -> None:
    file.write_text(GOOD.replace("max_rows = 32", 'max_rows = "many"').replace("rows_per_hour", "rows_an_hour"))
    with pytest.raises(InvalidInputError) as caught:
        Policy.load(file)
    assert "tiers.partner.max_rows" in str(caught.value)
    assert "tiers.guest.rows_an_hour" in str(caught.value)


def test_a_policy_that_changes_is_followed_and_a_bad_one_is_not(file: Path) -> None:
    text = file.read_text()
    file.unlink()
    policies = Policies(file, Policy.built_in(None))
    assert not policies.reload()
    file.write_text(text)
    assert policies.reload()
    assert policies.current.tier_of("CN=alice").max_rows == 32
    file.write_text(text.replace("max_rows = 32", "max_rows = 320000"))
    assert not policies.reload()
    assert policies.current.tier_of("CN=alice").max_rows == 32
    file.unlink()
    assert not policies.reload()
    assert policies.current.tier_of("CN=alice").max_rows == 32


def test_budgets_are_given_in_one_place(store: SiloStore, file: Path) -> None:
    settings = ServeSettings(tls_cert=Path("c"), tls_key=Path("k"), max_rows_per_day=5)
    assert policies_of(store, settings).current.budget_of("CN=a") == Budget(day=5)
    with pytest.raises(InvalidInputError, match="both give budgets"):
        policies_of(store, settings.model_copy(update={"policy": file}))
    with pytest.raises(NotFoundError, match="no policy"):
        policies_of(store, settings.model_copy(update={"policy": file.with_name("none")}))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_commands_check_and_explain(store: SiloStore, file: Path) -> None:
    (store.policy_path).write_text(GOOD.replace('generation_tasks = ["*"]', 'generation_tasks = ["stories"]'))
    checked = run("policy", "check", store.directory)
    assert (checked.exit_code, checked.stdout) == (0, "2 tiers, 1 identities; others: guest\n")
    assert checked.stderr == "warning: tier partner names generation task 'stories', which the silo does not have\n"
    ledger = Ledger(store.ledger_path)
    Usage(ledger).debit(UsageKey("CN=alice", "colours", "c" * 64), 500, 500, Budget())
    IdentityRegister(ledger).revoke("CN=alice")
    explained = json.loads(run("policy", "explain", store.directory, "CN=alice").stdout)
    assert (explained["tier"], explained["revoked"], explained["tasks"]) == ("partner", True, ["colours"])
    assert {name: explained["may"][name] for name in ("rate", "burst", "precision")} == {
        "rate": 5.0,
        "burst": None,
        "precision": 0.0625,
    }
    (used,) = explained["used"]
    assert (used["lifetime"], used["left"]) == (500, 0.5)
    (row,) = json.loads(run("exposure", store.directory, "--json").stdout)
    assert (row["rows"], row["revealing"], row["cosine"]) == (500, 13, 1.0)


def test_what_an_extractor_has_grows_with_its_rows() -> None:
    """Against the measured table of SECURITY.md, over-long rows at d = 768."""
    for rows, cosine in ((64, 0.29), (256, 0.58), (769, 1.0), (3072, 1.0)):
        assert extracted_cosine(rows, 768) == pytest.approx(cosine, abs=0.01)
