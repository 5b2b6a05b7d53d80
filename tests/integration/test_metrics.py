"""Metrics of a silo with two workers, and the alert rules and the dashboard that read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import quote

import grpc
import pytest

from sealign.protocol.v1 import alignment_pb2, classification_pb2, silo_pb2
from tests.support.metrics import samples
from tests.support.processes import Server, serving
from tests.support.silo import ClearModel, Tls, align_plain, space_of
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo
from tests.support.wire import RawClient, Stubs, raw_stubs

OBSERVABILITY = Path(__file__).parents[2] / "deploy" / "observability"
LIMIT = 60


@pytest.fixture(scope="module")
def silo(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    encoder, scratch = client_encoder(), tmp_path_factory.mktemp("silo")
    store = make_silo(scratch / "silo")
    align_plain(space_of(store), tls.client.subject, encoder.card, PUBLIC.digest, encoder.encode(PUBLIC.texts))
    options = (*tls.serve_options, "--workers", 2, "--metrics-listen", "127.0.0.1:0", "--max-rows-per-day", LIMIT)
    with serving("sealign-server", "serve", scratch / "silo", *options, log=scratch / "log", workers=2) as server:
        yield server


@pytest.fixture(scope="module")
def stubs(silo: Server, tls: Tls) -> Iterator[Stubs]:
    with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
        yield stubs


@pytest.fixture(scope="module")
def raw(silo: Server, stubs: Stubs, tls: Tls) -> RawClient:
    clear = ClearModel.load(silo.log_path.parent / "silo", tls.client, client_encoder().card.fingerprint, "colours")
    return RawClient.meet(stubs, clear.rows)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_calls_of_all_workers_are_counted_by_how_they_ended(silo: Server, raw: RawClient, tls: Tls) -> None:
    before = samples(silo)
    for _ in range(6):  # whichever worker takes the connection
        with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
            stubs.silo.Describe(silo_pb2.DescribeRequest(), timeout=30)
            with pytest.raises(grpc.RpcError):
                stubs.alignment.DescribeSpace(alignment_pb2.DescribeSpaceRequest(space="nowhere"), timeout=30)
    raw.send(raw.request(client_encoder().encode(PUBLIC.texts[:1])))
    until(lambda: samples(silo).get(("sealign_zeros_ready",), 0) > 0)
    after = samples(silo)

    def grown(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert grown("sealign_requests_total", "OK", "Describe") == 6
    assert grown("sealign_requests_total", "NOT_FOUND", "DescribeSpace") == 6
    assert grown("sealign_requests_total", "OK", "Classify") == 1
    assert grown("sealign_request_duration_seconds_count", "Classify") == 1
    for stage in ("budget", "wait", "product"):
        assert grown("sealign_stage_duration_seconds_count", stage) == 1
        assert 0 < grown("sealign_stage_duration_seconds_sum", stage) < 10
    assert after["sealign_keys_cached",] >= 1
    assert 0 < after["sealign_map_quality", "embeddings", "lowest"] <= 1


def test_a_budget_that_runs_out(silo: Server, raw: RawClient) -> None:
    request = raw.request(client_encoder().encode(PUBLIC.texts[:1]))
    codes = [raw.stubs.classification.Classify.future(request, timeout=60).code() for _ in range(LIMIT)]
    assert codes[-1] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert samples(silo)["sealign_refused_total", "BUDGET_EXHAUSTED"] >= 1
    until(lambda: samples(silo).get(("sealign_budget_remaining_ratio", "colours")) == 0)


def test_a_worker_that_dies_takes_its_gauges_and_leaves_its_counts(silo: Server, tls: Tls) -> None:
    with raw_stubs(silo.address, tls.authority, tls.client) as stubs:
        requests: Queue[classification_pb2.ClassifyRequest | None] = Queue()
        stream = stubs.classification.ClassifyStream(iter(requests.get, None))
        until(lambda: samples(silo)["sealign_requests_in_flight",] == 1)
        before = samples(silo)
        for event in silo.events("serving"):
            os.kill(event["pid"], signal.SIGKILL)
        silo.wait_for("serving", 4)
        after = samples(silo)
        requests.put(None)
        stream.cancel()
    assert after["sealign_requests_in_flight",] == 0
    lost = {key for key, value in before.items() if key[0].endswith("_total") and after.get(key, 0) < value}
    assert not lost


# Rules and dashboard


def exported() -> set[str]:
    """Names of metrics, as the code makes them."""
    source = Path(__file__).parents[2] / "server" / "sealign_server" / "observe"
    made = set(re.findall(r'"(sealign_\w+)"', "".join(path.read_text() for path in source.glob("*.py"))))
    return made | {name + ending for name in made for ending in ("_total", "_bucket", "_count", "_sum")}


@pytest.mark.parametrize("file", ["alerts.yaml", "dashboard.json"])
def test_every_metric_that_is_read_exists(file: str) -> None:
    text = (OBSERVABILITY / file).read_text()
    read = set(re.findall(r"\b(sealign_\w+)\b", text))
    assert len(read) >= 5
    assert read <= exported()


def dashboard() -> dict[str, Any]:
    return dict(json.loads((OBSERVABILITY / "dashboard.json").read_text()))


def queries() -> list[tuple[str, str, str]]:
    """Title, expression and legend of every query of the dashboard."""
    return [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in dashboard()["panels"]
        for target in panel["targets"]
    ]


def test_the_dashboard_is_what_grafanas_own_types_hold() -> None:
    """Grafana's types, generated from its schema, know every key and value: nothing is lost on the way through."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="needs Python 3.11")
    from grafana_foundation_sdk.cog import encoder, plugins

    plugins.register_default_plugins()
    read = models.Dashboard.from_json(dashboard())
    assert not unlike(dashboard(), json.loads(encoder.JSONEncoder().encode(read)))


def unlike(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Places at which something of ours is missing or different."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [found for key, value in ours.items() for found in unlike(value, theirs.get(key), f"{place}/{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            found for number, value in enumerate(ours) for found in unlike(value, theirs[number], f"{place}/{number}")
        ]
    return [] if ours == theirs else [place]


def test_variables_are_defined_and_names_are_unique() -> None:
    made = dashboard()
    defined = {variable["name"] for variable in made["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(made))) == defined
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in made["panels"]:
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names)


def test_panels_have_places_and_queries() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        assert all(target["expr"] for target in panel["targets"])
        taken |= cells


IDLE = ('code!="OK"', "sealign_refused_total", "sealign_budget_remaining_ratio")
"""In queries about what a silo that nobody has troubled yet has none of."""


def substituted(expression: str) -> str:
    """An expression as Grafana asks it, with its variables replaced."""
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (apt-get install prometheus)")
    return found


@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_the_alert_rules(arguments: tuple[str, ...]) -> None:
    ran = subprocess.run([tool("promtool"), *arguments], cwd=OBSERVABILITY, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def unanswered(ask: Callable[[str], dict[str, Any]]) -> Iterator[str]:
    """Titles of panels whose queries give nothing, or not the labels that their legends show."""
    for title, expression, legend in queries():
        result = ask(f"query?query={quote(substituted(expression))}").get("result")
        labels = re.findall(r"{{(\w+)}}", legend)
        may_be_empty = any(name in expression for name in IDLE)
        is_answered = result is not None and bool(result or may_be_empty)
        if not (is_answered and all(label in series["metric"] for series in result or () for label in labels)):
            yield title


def test_prometheus_reads_the_silo_loads_the_rules_and_answers_the_dashboard(
    silo: Server, raw: RawClient, tmp_path: Path
) -> None:
    program, target = tool("prometheus"), silo.events("serving metrics")[0]["address"]
    with suppress(grpc.RpcError):  # earlier tests may have used up the budget; the call counts
        raw.send(raw.request(client_encoder().encode(PUBLIC.texts[:1]), with_key=True))
    shutil.copy(OBSERVABILITY / "alerts.yaml", tmp_path)
    configuration = (OBSERVABILITY / "prometheus.yaml").read_text().replace("127.0.0.1:7444", target)
    (tmp_path / "prometheus.yaml").write_text(configuration.replace("15s", "1s"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ("--config.file=prometheus.yaml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}")

    def ask(path: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as reply:
                return dict(json.load(reply)["data"])
        except OSError:
            return {}

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], cwd=tmp_path, stdout=log, stderr=log)
    try:
        until(lambda: bool(ask("query?query=sealign_stage_duration_seconds_count").get("result")))
        assert len(json.dumps(ask("rules")).split('"alerting"')) == 8
        assert '"health": "bad"' not in json.dumps(ask("rules"))
        until(lambda: not list(unanswered(ask)))
    finally:
        process.terminate()
        process.wait(timeout=30)
