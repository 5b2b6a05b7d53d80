"""What the silo says about its work: one log record per call, never content."""

from sealign_server.observe.records import RecordLayer

__all__ = ["RecordLayer"]
