"""The demo that `docker compose -f deploy/compose.yaml up` starts, as its user sees it: `make compose-test`.

Every test leaves the demo as it found it, running.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import pytest

from tests.containers import faults
from tests.containers.faults import Watched
from tests.support.containers import ROOT, Builds, Composition, docker, opened_page, small_volume, stages, wait_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

FILE = "compose.yaml"

_LARGEST = {"sealign-silo": 300e6, "sealign-client": 900e6}
"""Bytes that these images may have."""
_IMAGES = (*_LARGEST, "sealign-demo-silo", "sealign-demo-client", "sealign-demo-application")
_TOPICS = {"acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade"}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A small volume for the silo's directory, and the compose file that says so."""
    with small_volume("silo", tmp_path_factory.mktemp("small"), 64) as found:
        yield found


@pytest.fixture(scope="module")
def demo(builds: Builds, volume: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    demo = Composition(FILE, tmp_path_factory.mktemp("screen") / "screen", volume[1])
    builds.wait(FILE)
    for image in _LARGEST:
        target = image.removeprefix("sealign-")
        docker("build", "--quiet", "--file", "deploy/images/Dockerfile", "--target", target, "--tag", image, ".")
    with demo.running():
        began = perf_counter()
        wait_until(lambda: bool(_labels(demo)), "a classified text")
        print(f"first classified text {perf_counter() - began:.1f} s after `up`; {stages(demo)}")
        wait_until(lambda: any("of the table" in line for line in demo.lines("application")), "the whole table")
        yield demo


def _labels(demo: Composition) -> list[str]:
    """Return the labels on the screen."""
    first = (line.split(maxsplit=1)[0] for line in demo.lines("application") if line)
    return [word for word in first if word in _TOPICS]


@pytest.fixture
def watched(demo: Composition) -> Watched:
    return Watched(demo)


def test_texts_are_classified_on_the_screen(demo: Composition, watched: Watched) -> None:
    total = next(line for line in demo.lines("application") if "of the table" in line)
    right, of = map(int, re.findall(r"\d+", total)[:2])
    print(total)
    assert of == 24
    assert right >= 12  # three texts of each of eight topics: three are right by chance
    watched.goes_on()


def test_the_printed_address_opens_the_page(demo: Composition) -> None:
    with opened_page(demo) as page:
        body = {"input": "crude oil prices rose after opec agreed to cut output"}
        assert page.post("/classify", json=body, headers={"Authorization": "Bearer none"}).status_code == 401
        assert page.post("/classify", json=body).json()["data"][0]["label"] == "crude"


def test_who_reaches_whom(demo: Composition) -> None:
    silo, daemon = demo.address("silo", "between"), demo.address("daemon", "local")
    assert demo.reaches("daemon", "silo", 7443)
    assert demo.reaches("application", daemon, 7450)
    assert demo.reaches("application", daemon, 7480)
    ways = [("application", host, 7443) for host in ("silo", silo)]
    for host in ("daemon", demo.address("daemon", "between"), daemon):
        ways += [("silo", host, port) for port in (7450, 7480)]
    assert demo.reached(ways) == []


def test_containers_have_no_rights_that_they_do_not_need(demo: Composition) -> None:
    for service in ("certificates", "silo", "daemon", "application"):
        found = demo.inspected(service)
        assert found["Config"]["User"] == "10001:10001", service
        assert found["HostConfig"]["ReadonlyRootfs"], service
        assert found["HostConfig"]["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in found["HostConfig"]["SecurityOpt"], service
    project = (ROOT / "pyproject.toml").read_text()
    version, licence = re.findall(r'^(?:version|license) = "(.+)"$', project, re.MULTILINE)
    for image in _IMAGES:
        labels = json.loads(docker("image", "inspect", image))[0]["Config"]["Labels"]
        assert labels["org.opencontainers.image.version"] == version, image
        assert labels["org.opencontainers.image.licenses"] == licence, image
        search = "find / -xdev -type f -perm /6000 2>/dev/null; command -v pip apt apt-get dpkg; true"
        assert _in(image, "bash", "-c", search) == "", image
    find = "from importlib.util import find_spec; print([n for n in NAMES if find_spec(n)])"
    names = "NAMES = ('grpc', 'torch', 'transformers', 'sklearn', 'pip', 'setuptools')\n"
    assert _in("sealign-silo", "python", "-c", names + find) == "['grpc']"
    count = "from sealign.shipped import general_texts; print(len(general_texts()))"
    assert _in("sealign-client", "python", "-c", count) == "20000"


def test_images_are_small(demo: Composition) -> None:
    for image, most in _LARGEST.items():
        size = json.loads(docker("image", "inspect", image))[0]["Size"]
        print(f"{image}: {size / 1e6:.0f} MB")
        assert size <= most, image


@pytest.mark.parametrize("image", _LARGEST)
def test_the_bill_of_materials_names_each_distribution(demo: Composition, image: str) -> None:
    bill = json.loads(_in(image, "cat", "/opt/sealign/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    script = "from importlib.metadata import distributions as d; print(*{f'{p.name}=={p.version}' for p in d()})"
    installed = set(_in(image, "python", "-c", script).split())
    assert {f"{found['name']}=={found['version']}" for found in bill["components"]} == installed
    assert any(found.startswith("sealign==") for found in installed)


def _in(image: str, program: str, *arguments: str) -> str:
    """Return what a program in an image prints."""
    return docker("run", "--rm", "--network", "none", "--entrypoint", program, image, *arguments).strip()


def test_the_probes_cost_little(demo: Composition) -> None:
    asked = 'sealign-server health --address localhost:7443 --tls-ca "$SEALIGN_HEALTH_TLS_CA"'
    python = _processor_ms(demo, "silo", asked, runs=2)
    for service in ("silo", "daemon"):
        shell = _processor_ms(demo, service, f"probe-{service}")
        print(f"probe-{service}: {shell:.1f} ms of processor; sealign-server health: {python:.0f} ms")
        assert shell < python / 10


def _processor_ms(demo: Composition, service: str, command: str, runs: int = 10) -> float:
    """Return the processor time of one run of a command in a container, in ms."""
    script = f"for i in {{1..{runs}}}; do {command} >/dev/null || exit; done; times"
    last = demo.run("exec", "--no-TTY", service, "bash", "-c", script).splitlines()[-1]
    times = [(int(minutes), float(seconds)) for minutes, seconds in re.findall(r"(\d+)m([\d.]+)s", last)]
    return 1000 * sum(60 * minutes + seconds for minutes, seconds in times) / runs


@pytest.mark.parametrize("fault", [faults.kill, faults.partition, faults.rotate])
def test_a_fault_is_said_and_ends(watched: Watched, fault: Callable[[Watched], None]) -> None:
    fault(watched)


def test_a_full_volume_is_said_and_ends(watched: Watched, volume: tuple[Path, Path]) -> None:
    faults.fill(watched, volume[0])


def test_logs_hold_no_texts(demo: Composition) -> None:
    texts = _in("sealign-demo-application", "cat", "/demo/texts.tsv").splitlines()[1:]
    logs = demo.run("logs", "--no-log-prefix", "silo", "daemon")
    assert len(texts) == 24
    assert not [text for text in texts if text.partition("\t")[2][:40] in logs]


def test_down_and_up_again_need_no_new_map(demo: Composition, watched: Watched) -> None:
    listed = ("exec", "--no-TTY", "silo", "sealign-server", "map", "list", "/silo")
    before = demo.run(*listed)
    demo.down()
    demo.up()
    wait_until(lambda: demo.run(*listed, check=False) == before, "the silo has its map")
    watched.goes_on()
