"""A silo that answers some rows otherwise than at first, where nothing else would tell: canaries find it.

Each answer that it changes decrypts to values within the range, and single rows carry no check rows.
"""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sealign.errors import BudgetExhaustedError, InvalidInputError, WrongAnswersError
from sealign_client import CanaryReport, Client
from tests.support.fakesilo import Address, FakeSilo
from tests.support.processes import command
from tests.support.views import PUBLIC, clear_queries, client_encoder

QUERIES = clear_queries(60)


def made(address: Address, tmp_path: Path, **settings: Any) -> Client:
    fields = {"map_directory": tmp_path / "maps", "timeout": 20.0, "canaries": 0.5, **settings}
    return Client(**address.settings(**fields), encoder=client_encoder())


def only(reports: tuple[CanaryReport, ...]) -> CanaryReport:
    (report,) = reports
    return report


def rows_asked(fake: FakeSilo) -> int:
    """Requests for a single row and for batches that the silo has answered."""
    return len(fake.queries)


class Liar:
    """Answers some queries, drawn at random, by another head.

    Args:
        fake: the silo that is to do so.
        share: of the queries.
    """

    def __init__(self, fake: FakeSilo, share: float) -> None:
        self.share, self.told = share, 0
        self._random = random.Random(7)
        fake.answers = self

    def __call__(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        lies = self._random.random() < self.share
        self.told += lies
        return -weight if lies else weight


def asked_alone(client: Client, count: int) -> None:
    """So many rows, one call after the other, and time for canaries between the calls."""
    rows = client.encoder.encode([f"alone {number}" for number in range(count)])
    for row in rows:
        client.logits(row[None])


def test_an_honest_silo_is_never_suspected_and_canaries_look_like_rows(
    address: Address, fake: FakeSilo, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with made(address, tmp_path) as client:
            client.align(PUBLIC)
            rows = client.encoder.encode(QUERIES)
            alone = Client(**address.settings(map_directory=tmp_path / "maps"), encoder=client.encoder)
            with alone:
                right = alone.logits(rows, verify=False)
                sent = rows_asked(fake)
            for _ in range(20):  # 60 rows with 30 canaries among them, each at places of its own
                found = client.logits(rows, verify=False)
                assert np.abs(found - right).max() <= 2 * max(p.precision for p in client.describe().tasks[0].plans)
            assert rows_asked(fake) > sent + 20
            report = only(client.canaries())
            assert report.compared > 300
            assert (report.wrong, report.is_alarm, report.confidence) == (0, False, 0.0)
            assert report.undetected_share < 0.016
    shown = command("sealign", "canaries", "list", "--map-directory", tmp_path / "maps")
    assert f"{report.compared}" in shown.stdout


def test_canaries_cost_nothing_unless_they_are_asked_for(address: Address, fake: FakeSilo, tmp_path: Path) -> None:
    with made(address, tmp_path, canaries=0.0) as client:
        client.align(PUBLIC)
        asked_alone(client, 5)
        assert rows_asked(fake) == 5
        assert client.canaries() == ()
    assert not list((tmp_path / "maps").glob("*.baseline"))


def test_a_silo_that_changes_some_batches_is_found_and_refused_if_that_is_asked_for(
    address: Address, fake: FakeSilo, tmp_path: Path
) -> None:
    with made(address, tmp_path) as client:
        client.align(PUBLIC)
        rows = client.encoder.encode(QUERIES[:40])
        client.logits(rows, verify=False)  # the first answers
        liar = Liar(fake, 0.25)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(60):
                client.logits(rows, verify=False)
        assert any("otherwise than at first, under the same revision" in str(warning.message) for warning in caught)
        report = only(client.canaries())
        assert liar.told
        assert report.is_alarm
        assert report.confidence > 1 - 1e-6
        assert 0 < report.wrong < report.compared
    sent = rows_asked(fake)
    with made(address, tmp_path, canary_alarm="refuse") as strict:
        with pytest.raises(WrongAnswersError, match="sealign canaries forget"):
            strict.logits(rows, verify=False)
        assert rows_asked(fake) == sent  # nothing is sent any more
    done = command("sealign", "canaries", "forget", "--map-directory", tmp_path / "maps")
    assert "forgot the answers of 1" in done.stdout
    liar.share = 0.0
    with made(address, tmp_path, canary_alarm="refuse") as strict:
        strict.logits(rows, verify=False)


@pytest.mark.filterwarnings("ignore:The silo answered")
def test_a_silo_that_changes_answers_to_single_rows_is_found(address: Address, fake: FakeSilo, tmp_path: Path) -> None:
    """A request for one row and a request for one canary have the same shape, and come one by one."""
    with made(address, tmp_path) as client:
        client.align(PUBLIC)
        client.logits(client.encoder.encode(QUERIES[:2]))
        Liar(fake, 0.5)
        sent, rows = rows_asked(fake), 0
        while not only(client.canaries()).is_alarm:
            asked_alone(client, 20)
            rows += 20
            assert rows < 2000
        assert rows_asked(fake) > sent + rows


def test_without_canaries_nobody_would_notice(address: Address, fake: FakeSilo, tmp_path: Path) -> None:
    """The ingredients: the changed outputs are within the range, and a single row has no check rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with made(address, tmp_path, canaries=0.0) as client:
            client.align(PUBLIC)
            row = client.encoder.encode(QUERIES[:1])
            right = client.logits(row)
            Liar(fake, 1.0)
            assert np.abs(client.logits(row) - right).max() > 0.1


def test_training_anew_is_no_alarm(address: Address, fake: FakeSilo, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with made(address, tmp_path) as client:
            client.align(PUBLIC)
            rows = client.encoder.encode(QUERIES)
            client.logits(rows, verify=False)
            before = only(client.canaries())
            fake.retrain()
            client.describe(refresh=True)
            for _ in range(3):
                client.logits(rows, verify=False)
            reports = client.canaries()
            assert [report.is_alarm for report in reports] == [False, False]
            assert {report.compared for report in reports} > {before.compared}
            # The same change under the old revision is what canaries are for.
            fake.retrain(say_so=False)
            with pytest.warns(UserWarning, match="otherwise than at first"):
                client.logits(rows, verify=False)
            assert any(report.is_alarm for report in client.canaries())


def test_a_budget_that_is_enough_for_the_rows_alone_is_no_alarm(
    address: Address, fake: FakeSilo, tmp_path: Path
) -> None:
    refused: list[str] = []

    def exhausted(method: str, reply: Any) -> Any:
        if method == "Classify" and not refused:
            refused.append(method)
            raise BudgetExhaustedError("no more rows for you")
        return reply

    with made(address, tmp_path, canaries=0.0) as client:
        client.align(PUBLIC)
        rows = client.encoder.encode(QUERIES[:2])
        right = client.logits(rows, verify=False)
    fake.tamper = exhausted
    with made(address, tmp_path) as client, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.abs(client.logits(rows, verify=False) - right).max() < 0.02
        assert refused
        assert client.canaries() == ()


def test_a_client_that_never_aligned_is_told_what_to_do(address: Address, fake: FakeSilo, tmp_path: Path) -> None:
    with made(address, tmp_path, canaries=0.0) as client:
        client.align(PUBLIC)
    (file,) = (tmp_path / "maps").glob("*.canaries")
    file.unlink()
    with made(address, tmp_path) as client, pytest.raises(InvalidInputError, match="Align with this encoder"):
        client.classify(QUERIES[:1])
