"""gRPC's reflection service, under both names by which tools ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

_OLD, _NEW = "v1alpha", "v1"
_V1 = reflection.SERVICE_NAME.replace(_OLD, _NEW)


def enable_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Describe services to tools such as grpcurl.

    grpcio-reflection serves v1alpha alone. The messages of v1 are the same, so one servicer answers both.

    Args:
        server: to add the service to.
        services: full names, without reflection's own.
    """
    _describe_v1()
    named = (*services, reflection.SERVICE_NAME, _V1)
    reflection.enable_server_reflection(named, server)
    method = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(named).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_V1, {"ServerReflectionInfo": method})])


def _describe_v1() -> None:
    """Add v1's description, which is v1alpha's under another name."""
    pool: Any = descriptor_pool.Default()
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    renamed = json_format.Parse(json_format.MessageToJson(file).replace(_OLD, _NEW), FileDescriptorProto())
    try:
        pool.FindFileByName(renamed.name)
    except KeyError:
        pool.AddSerializedFile(renamed.SerializeToString())
