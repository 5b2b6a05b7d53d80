"""The demo of replicas, as its user sees it: `docker compose -f deploy/compose.scale.yaml up`.

Applications ask without a pause while replicas, networks and certificates come and go. Every test leaves the demo as
it found it, running.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from time import perf_counter

import httpx
import pytest

from tests.containers.traffic import traffic
from tests.support.containers import Builds, Composition, cut_off, docker, kill_process, wait_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

FILE = "compose.scale.yaml"

REPLICAS = 3
_ROTATE = """
set -eu
cd /tmp
umask 077
sealign-server certificates new --host silo --host localhost --client envoy --client probe
# Both authorities first, for both sides; then the certificates; each file by a rename.
put() { cp "$1" "$2.new" && mv "$2.new" "$2"; }
cat /tls/silo/ca.pem new/ca.pem > both.pem
put both.pem /tls/silo/ca.pem
put both.pem /tls/envoy/inside.pem
sleep 3
for name in silo probe; do put new/$name.key /tls/silo/$name.key; put new/$name.pem /tls/silo/$name.pem; done
for suffix in key pem; do put new/envoy.$suffix /tls/envoy/envoy.$suffix; done
sleep 3
put new/ca.pem /tls/silo/ca.pem
put new/ca.pem /tls/envoy/inside.pem
"""


@pytest.fixture(scope="module")
def demo(builds: Builds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    demo = Composition(FILE, tmp_path_factory.mktemp("screen") / "screen")
    builds.wait(FILE)
    with demo.running():
        began = perf_counter()
        wait_until(lambda: any("of the table" in line for line in demo.lines("application")), "the whole table")
        print(f"aligned and classified the table in {perf_counter() - began:.0f} s")
        wait_until(lambda: len(_healthy(demo)) == REPLICAS, "every replica healthy")
        yield demo


def _replicas(demo: Composition) -> list[str]:
    return demo.run("ps", "--quiet", "silo").split()


def _healthy(demo: Composition) -> list[str]:
    """Return the replicas at which a call would work."""
    shown = [docker("inspect", "--format", "{{.State.Health.Status}}", found).strip() for found in _replicas(demo)]
    return [health for health in shown if health == "healthy"]


def _queried(expression: str) -> list[dict[str, dict[str, str]]]:
    """Return what Prometheus answers to a query."""
    reply = httpx.get("http://127.0.0.1:9090/api/v1/query", params={"query": expression}, timeout=60)
    found: list[dict[str, dict[str, str]]] = reply.raise_for_status().json()["data"]["result"]
    return found


def test_texts_are_classified_through_the_balancer(demo: Composition) -> None:
    total = next(line for line in demo.lines("application") if "of the table" in line)
    right, of = map(int, re.findall(r"\d+", total)[:2])
    print(total)
    assert of == 24
    assert right >= 12  # of eight topics
    assert any(line.startswith("aligned over public.txt") for line in demo.lines("aligner"))


def test_each_replica_answers_and_prometheus_shows_it(demo: Composition) -> None:
    answered = 'sealign_requests_total{rpc="Classify",code="OK"} >= 5'
    with traffic(demo):
        wait_until(lambda: len(_queried(answered)) == REPLICAS, "every replica has answered")
    page = httpx.get("http://127.0.0.1:9090/consoles/sealign.html", timeout=60).raise_for_status().text
    assert len(re.findall(r"<td>[\d.]+:7444\s+<td>yes", page)) == REPLICAS
    wait_until(lambda: bool(_queried('envoy_cluster_upstream_rq_total{envoy_cluster_name="silo"}')), "Envoy's counters")
    rules = httpx.get("http://127.0.0.1:9090/api/v1/rules", timeout=60).json()["data"]["groups"]
    assert rules[0]["rules"]


def test_replicas_know_the_client_and_not_only_the_proxy(demo: Composition) -> None:
    (first, *_) = _replicas(demo)
    records = [
        json.loads(line) for line in docker("exec", first, "sealign-server", "audit", "export", "/silo").splitlines()
    ]
    assert "CN=sealign scale" in {record["identity"] for record in records}
    # Envoy is the only way to them.
    networks = json.loads(docker("inspect", first))[0]["NetworkSettings"]["Networks"]
    assert demo.reaches("envoy", networks[f"{demo.project}_inside"]["IPAddress"], 7443)
    assert not any(demo.reaches("daemon", found["IPAddress"], 7443) for found in networks.values())


def test_a_killed_replica_fails_no_call(demo: Composition) -> None:
    (victim, *_) = _replicas(demo)
    with traffic(demo) as seen:
        kill_process(victim)
        seen.goes_on(20)
        wait_until(lambda: len(_healthy(demo)) == REPLICAS, "the replica is back")
    print(f"killed: {seen.summary()}")
    assert seen.faults == []


def test_a_rolling_restart_fails_no_call(demo: Composition) -> None:
    with traffic(demo) as seen:
        for replica in _replicas(demo):
            docker("restart", "--time", "20", replica)
            wait_until(lambda: len(_healthy(demo)) == REPLICAS, "the replica is back")
    print(f"rolling restart: {seen.summary()}")
    assert seen.faults == []


def test_a_partition_of_a_replica_fails_no_call(demo: Composition) -> None:
    network, (lost, *_) = f"{demo.project}_inside", _replicas(demo)
    with traffic(demo) as seen:
        with cut_off(network, lost, "silo"):
            seen.goes_on(20)
        wait_until(lambda: len(_queried('up{job="sealign"} == 1')) == REPLICAS, "the replica is seen again")
    print(f"partition: {seen.summary()}")
    assert seen.faults == []


def test_certificates_are_rotated_under_load(demo: Composition) -> None:
    volumes = [f"--volume={demo.project}_{name}-tls:/tls/{name}" for name in ("silo", "envoy")]
    options = ["--rm", "--network", "none", "--entrypoint", "bash", *volumes, "sealign-demo-silo"]
    (first, *_) = _replicas(demo)
    before = docker("exec", first, "cat", "/tls/ca.pem")
    with traffic(demo) as seen:
        docker("run", *options, "-c", _ROTATE)
        assert docker("exec", first, "cat", "/tls/ca.pem") != before
        # What connects from now on has seen the new files alone.
        docker("restart", "--time", "20", first)
        wait_until(lambda: len(_healthy(demo)) == REPLICAS, "the probes' certificates are right, too")
    print(f"certificates: {seen.summary()}")
    assert seen.faults == []


def test_a_ledger_that_is_away_is_said_and_comes_back(demo: Composition) -> None:
    network, database = f"{demo.project}_ledger", demo.container("postgresql")
    with traffic(demo) as seen:
        with cut_off(network, database, "postgresql"):
            wait_until(lambda: bool(seen.faults), "an application is told that there is no answer")
        seen.goes_on()
    print(f"ledger away: {seen.summary()}")
    assert {fault[:3] for fault in seen.faults} == {"503"}


def test_everything_restarted_goes_on(demo: Composition) -> None:
    seen = len(demo.lines("application"))
    demo.run("restart", "--timeout", "10", "postgresql", "silo", "envoy", "daemon", "application")
    wait_until(lambda: len(demo.lines("application")) > seen, "classified texts, with map and token of before")
    assert len(demo.lines("aligner")) == 1
