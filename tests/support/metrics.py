"""What a silo exports to Prometheus, read."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import Server


def samples(silo: Server) -> dict[tuple[str, ...], float]:
    """Return what it exports, by name and values of labels in the order of their names."""
    address = silo.events("serving metrics")[0]["address"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value for sample in found}
