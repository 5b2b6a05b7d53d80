"""The silo's processes: TLS, health, reflection, workers, orderly shutdown."""

from sealign_server.runtime.serve import serve

__all__ = ["serve"]
