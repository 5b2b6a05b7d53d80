"""The silo's gRPC services: handlers, which know no policy, and the layers of the frame, which know no service."""

from sealign_server.rpc.server import Service, build_server

__all__ = ["Service", "build_server"]
