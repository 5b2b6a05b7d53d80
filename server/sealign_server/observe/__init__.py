"""What the silo says about its work: one log record per call, metrics, traces; never content."""

from sealign_server.observe.exporter import SiloState, forget_worker, metrics_served
from sealign_server.observe.metrics import Metrics, MetricsLayer
from sealign_server.observe.records import RecordLayer
from sealign_server.observe.traces import TraceLayer

__all__ = ["Metrics", "MetricsLayer", "RecordLayer", "SiloState", "TraceLayer", "forget_worker", "metrics_served"]
