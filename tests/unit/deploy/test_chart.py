"""The Helm chart: linted, rendered, and held against the schemas of Kubernetes; no cluster is involved."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from sealign.app.settings import LayeredSettings
from sealign_client.settings import ClientSettings
from sealign_server.settings import ServeSettings

helm = pytest.importorskip("helm_python", reason="needs helm-python-sdk (extra `dev`)")
kubernetes = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate (extra `dev`)")

CHART = Path(__file__).parents[3] / "deploy" / "helm" / "sealign"
VERSIONS = tuple(f"1.{number}" for number in range(29, 38))

SILO: dict[str, Any] = {
    "silo": {
        "enabled": True,
        "tls": {"secretName": "silo-tls"},
        "probe": {"secretName": "silo-probe"},
        "volume": {"existingClaim": "silo"},
        "networkPolicy": {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
    }
}
DAEMON: dict[str, Any] = {
    "daemon": {
        "enabled": True,
        "silo": "silo.example:7443",
        "encoder": "transformers:/models/minilm",
        "models": {"existingClaim": "models"},
        "tls": {"secretName": "client-tls"},
        "token": {"secretName": "token"},
    }
}


def changed(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return values with some of them changed; `__` separates the names of a path."""
    found = copy.deepcopy(values)
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = found
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return found


SEVERAL = changed(
    SILO,
    silo__autoscaling__enabled=True,
    silo__ledger__secretName="ledger",
    silo__volume__accessMode="ReadWriteMany",
    silo__settings={"workers": 4, "batch_rows": [1, 64], "drain_seconds": 20, "trusted_proxies": ["dns:a", "dns:b"]},
    silo__tolerations=[{"key": "dedicated", "operator": "Exists"}],
    silo__nodeSelector={"kubernetes.io/arch": "amd64"},
)
ALIGNED = changed(
    DAEMON,
    alignment={"enabled": True, "mode": "encrypted", "publicTexts": {"configMap": "public"}},
    daemon__maps__existingClaim="maps",
    daemon__networkPolicy__siloCidr="192.0.2.7/32",
)
OPEN = changed(
    SEVERAL,
    silo__service={"tokenPort": 8443},
    silo__metrics={
        "enabled": True,
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    silo__autoscaling__targetInFlight=8,
)
SAVED = changed(SILO, backup={"enabled": True, "existingClaim": "backups"})
CASES = {"silo": SILO, "saved": SAVED, "several": SEVERAL, "open": OPEN, "daemon": DAEMON, "aligned": ALIGNED}


@pytest.fixture(scope="module")
def chart() -> Any:
    return helm.Chart.load(str(CHART))


def rendered(chart: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that a release would have."""
    files = chart.render(values, name="here", namespace="sealign")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    specs = [found.get("spec", {}) for found in objects]
    specs += [spec["jobTemplate"]["spec"] for spec in specs if "jobTemplate" in spec]
    return [spec["template"]["spec"] for spec in specs if "template" in spec]


@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing(case: str) -> None:
    report = helm.lint(str(CHART), CASES[case], strict=True)
    assert report["errors"] == []
    assert [found for found in report["messages"] if found["severity"] > 1] == []


@pytest.mark.parametrize("case", CASES)
def test_objects_are_those_of_kubernetes(chart: Any, case: str) -> None:
    for found in rendered(chart, CASES[case]):
        if found["kind"] != "ServiceMonitor":  # not Kubernetes' own
            for version in VERSIONS:
                kubernetes.validate(found, version, strict=True)


def test_kinds(chart: Any) -> None:
    kinds = {case: sorted(found["kind"] for found in rendered(chart, values)) for case, values in CASES.items()}
    silo = ["Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"]
    assert kinds == {
        "silo": silo,
        "saved": sorted([*silo, "CronJob"]),
        "several": sorted([*silo, "HorizontalPodAutoscaler"]),
        "open": sorted([*silo, "HorizontalPodAutoscaler", "Service", "ServiceMonitor"]),
        "daemon": ["Deployment", "NetworkPolicy", "Service"],
        "aligned": ["Deployment", "Job", "NetworkPolicy", "Service"],
    }


@pytest.mark.parametrize("case", CASES)
def test_pods_have_no_rights_that_they_do_not_need(chart: Any, case: str) -> None:
    for pod in pods(rendered(chart, CASES[case])):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_a_token_for_the_silo_comes_from_a_secret(chart: Any) -> None:
    for pod in pods(rendered(chart, changed(CASES["aligned"], daemon__siloToken={"secretName": "given"}))):
        (found,) = (e for e in pod["containers"][0]["env"] if e["name"] == "SEALIGN_CLIENT_SILO_TOKEN")
        assert found["valueFrom"] == {"secretKeyRef": {"name": "given", "key": "token"}}


@pytest.mark.parametrize("case", CASES)
def test_programs_take_the_variables(chart: Any, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [found for found in rendered(chart, CASES[case]) if found["kind"] != "CronJob"]
    for pod in pods(objects):
        variables = {entry["name"]: entry.get("value", "sqlite://") for entry in pod["containers"][0]["env"]}
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            program = (
                ServeSettings if any(name.startswith(ServeSettings.prefix) for name in variables) else ClientSettings
            )
            settings = program.load(None, {})
        if case == "several":
            assert isinstance(settings, ServeSettings)
            assert (settings.workers, settings.batch_rows, settings.ledger) == (4, (1, 64), "sqlite://")
            assert settings.trusted_proxies == ("dns:a", "dns:b")
            assert pod["terminationGracePeriodSeconds"] > 5 + settings.drain_seconds


def test_ports_that_are_asked_for_are_open(chart: Any) -> None:
    closed, opened = rendered(chart, SEVERAL), rendered(chart, OPEN)
    assert _ports(closed) == {"grpc": 7443}
    assert _ports(opened) == {"grpc": 7443, "grpc-token": 7445, "metrics": 7444}
    variables = {entry["name"]: entry.get("value") for entry in pods(opened)[0]["containers"][0]["env"]}
    expected = {"SEALIGN_SILO_TOKEN_LISTEN": "0.0.0.0:7445", "SEALIGN_SILO_METRICS_LISTEN": "0.0.0.0:7444"}
    assert expected.items() <= variables.items()
    calls, metrics = ([port["port"] for port in rule["ports"]] for rule in _policy(opened)["ingress"])
    assert (calls, metrics) == (["grpc", "grpc-token"], ["metrics"])
    services = {found["metadata"]["name"]: found for found in opened if found["kind"] == "Service"}
    assert [port["port"] for port in services["here-silo"]["spec"]["ports"]] == [7443, 8443]
    (monitor,) = (found for found in opened if found["kind"] == "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    labels = services["here-silo-metrics"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["spec"]["endpoints"][0]["port"] == services["here-silo-metrics"]["spec"]["ports"][0]["name"]


def _ports(objects: list[dict[str, Any]]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in pods(objects)[0]["containers"][0]["ports"]}


def _policy(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (policy,) = (found["spec"] for found in objects if found["kind"] == "NetworkPolicy")
    return dict(policy)


def test_metrics_alone_can_be_reached(chart: Any) -> None:
    policy = _policy(rendered(chart, changed(OPEN, silo__networkPolicy={})))
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": "metrics"}]]


def test_replicas_are_the_autoscalers(chart: Any) -> None:
    (one,) = (found["spec"] for found in rendered(chart, SILO) if found["kind"] == "Deployment")
    (several,) = (found["spec"] for found in rendered(chart, SEVERAL) if found["kind"] == "Deployment")
    assert (one["replicas"], one["strategy"]["type"]) == (1, "Recreate")
    assert "replicas" not in several
    assert several["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_only_applications_reach_the_daemon(chart: Any) -> None:
    (policy,) = (found["spec"] for found in rendered(chart, ALIGNED) if found["kind"] == "NetworkPolicy")
    ((peer,),) = (rule["from"] for rule in policy["ingress"])
    assert peer == {"podSelector": {"matchLabels": {"sealign.dev/application": "true"}}}
    assert policy["egress"][1]["to"] == [{"ipBlock": {"cidr": "192.0.2.7/32"}}]
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_nobody_reaches_a_silo_without_peers(chart: Any) -> None:
    (policy,) = (
        f["spec"] for f in rendered(chart, changed(SILO, silo__networkPolicy={})) if f["kind"] == "NetworkPolicy"
    )
    assert "Ingress" in policy["policyTypes"]
    assert "ingress" not in policy


def test_another_public_set_is_another_job(chart: Any) -> None:
    public = {}
    for given in ({"configMap": "public"}, {"configMap": "other"}, {}, {"shipped": "general:4000"}):
        values = changed(ALIGNED, alignment__publicTexts=given)
        (job,) = (found for found in rendered(chart, values) if found["kind"] == "Job")
        pod = job["spec"]["template"]["spec"]
        mounted = any(volume["name"] == "public" for volume in pod["volumes"])
        public[job["metadata"]["name"]] = (pod["containers"][0]["args"][-1], mounted)
    file, general, some = ("/public/public.txt", True), ("general", False), ("general:4000", False)
    assert list(public.values()) == [file, file, general, some]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "anyOf"),
        ({**SILO, "sillo": {}}, "sillo"),
        (changed(SILO, backup__enabled=True), "backup/existingClaim"),
        (changed(SAVED, backup__schedule="nightly"), "backup/schedule"),
        (changed(SAVED, backup__keepDays=0), "backup/keepDays"),
        (changed(DAEMON, backup=SAVED["backup"]), "Set silo.enabled"),
        (changed(SILO, silo__tls__secretName=""), "silo/tls/secretName"),
        (changed(SILO, silo__tls__secretName="Not a name"), "silo/tls/secretName"),
        (changed(SILO, silo__probe={}), "silo/probe/secretName"),
        (changed(SILO, silo__volume__existingClaim=""), "silo/volume/existingClaim"),
        (changed(SILO, silo__volume__accessMode="ReadOnlyMany"), "silo/volume/accessMode"),
        (changed(SILO, silo__replicas=0), "silo/replicas"),
        (changed(SILO, silo__replicas="2"), "silo/replicas"),
        (changed(SILO, silo__replicas=2), "Set silo.ledger.secretName"),
        (changed(SILO, silo__replicas=2, silo__ledger__secretName="ledger"), "to ReadWriteMany"),
        (changed(SILO, silo__settings={"worker": 2}), "silo/settings"),
        (changed(SILO, silo__settings={"tls_key": "/key"}), "silo/settings"),
        (changed(SILO, silo__settings={"workers": None}), "silo/settings/workers"),
        (changed(SILO, silo__settings={"trusted_proxies": "dns:a"}), "silo/settings/trusted_proxies"),
        (changed(SILO, silo__settings={"workers": {}}), "silo/settings/workers"),
        (changed(SILO, silo__service__type="ExternalName"), "silo/service/type"),
        (changed(SILO, silo__service__port=70_000), "silo/service/port"),
        (changed(SILO, silo__resources={"requests": {"gpu": 1}}), "silo/resources/requests"),
        (changed(SILO, silo__resources={"requests": {"memory": "1 GB"}}), "silo/resources/requests/memory"),
        (changed(SILO, silo__networkPolicy={"from": [{}]}), "silo/networkPolicy/from/0"),
        (changed(SILO, silo__networkPolicy={"from": [{"cidr": "10.0.0.0/8"}]}), "silo/networkPolicy/from/0"),
        (changed(SILO, silo__autoscaling__targetProcessorPercent=0), "targetProcessorPercent"),
        (changed(SILO, silo__service__tokenPort=-1), "silo/service/tokenPort"),
        (changed(OPEN, silo__settings={"tokens": True}), "Leave silo.settings.tokens out"),
        (changed(OPEN, silo__metrics={"enabled": True, "port": 1}), "silo/metrics"),
        (changed(SILO, silo__metrics={"from": [{}]}), "silo/metrics/from/0"),
        (changed(SILO, silo__metrics={"serviceMonitor": {"enabled": True}}), "Set silo.metrics.enabled"),
        (changed(SEVERAL, silo__autoscaling__targetInFlight=8), "Set silo.metrics.enabled"),
        (changed(SEVERAL, silo__autoscaling__targetInFlight=-1), "targetInFlight"),
        (changed(SILO, silo__disruptionBudget__maxUnavailable=0), "maxUnavailable"),
        (changed(SILO, silo__image={"repository": ""}), "silo/image/repository"),
        (changed(SILO, silo__image__pullPolicy="Sometimes"), "silo/image/pullPolicy"),
        (changed(DAEMON, daemon__silo="silo.example"), "daemon/silo"),
        (changed(DAEMON, daemon__encoder=""), "daemon/encoder"),
        (changed(DAEMON, daemon__token={}), "daemon/token/secretName"),
        (changed(DAEMON, daemon__networkPolicy__applicationLabels=None), "daemon/networkPolicy"),
        (changed(DAEMON, daemon__networkPolicy__siloCidr="192.0.2.7"), "daemon/networkPolicy/siloCidr"),
        (changed(ALIGNED, alignment__mode="rotated"), "alignment/mode"),
        (changed(ALIGNED, alignment__publicTexts={"shipped": "wikipedia"}), "alignment/publicTexts/shipped"),
        (changed(ALIGNED, daemon__maps={}), "Set daemon.maps.existingClaim"),
        (changed(SILO, alignment={"enabled": True, "publicTexts": {"configMap": "public"}}), "Set daemon.enabled"),
    ],
)
def test_wrong_values_are_refused_by_name(chart: Any, values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        rendered(chart, values)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("side", "program", "made_by_the_chart"),
    [
        (
            "silo",
            ServeSettings,
            {
                *("listen", "token_listen", "metrics_listen", "tls_cert", "tls_key", "tls_client_ca"),
                *("anonymous", "ledger"),
            },
        ),
        (
            "daemon",
            ClientSettings,
            {
                *("silo", "encoder", "model", "tls_ca", "tls_cert", "tls_key", "listen", "http", "http_hosts"),
                *("key_directory", "key_passphrase", "map_directory", "recentring", "token_file"),
                *("silo_token", "silo_token_file"),
            },
        ),
    ],
)
def test_settings_are_those_of_the_program(
    chart: Any, side: str, program: type[LayeredSettings], made_by_the_chart: set[str]
) -> None:
    names = chart.schema["properties"][side]["properties"]["settings"]["properties"]
    assert set(names) == program.model_fields.keys() - made_by_the_chart


def test_version_is_the_packages(chart: Any) -> None:
    project = (CHART.parents[2] / "pyproject.toml").read_text()
    assert f'version = "{chart.metadata["appVersion"]}"' in project
