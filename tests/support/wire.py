"""Raw calls to a silo: requests that Sealign's own client never sends, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from numpy.typing import NDArray

from sealign.ckks import Cipher, EncryptedMatrix, PackingPlan, SecretKey, SecurityTable, SeededCiphertext
from sealign.errors import SealignError
from sealign.protocol import RowKind, TaskCard
from sealign.protocol.conversions.classification import task_from_wire
from sealign.protocol.conversions.types import matrix_to_wire, product_from_wire, public_key_to_wire, rows_to_wire
from sealign.protocol.status import error_of
from sealign.protocol.v1 import classification_pb2 as pb
from sealign.protocol.v1.alignment_pb2_grpc import AlignmentStub
from sealign.protocol.v1.classification_pb2_grpc import ClassificationStub
from sealign.protocol.v1.generation_pb2_grpc import GenerationStub
from sealign.protocol.v1.silo_pb2_grpc import SiloStub
from tests.support.certificates import Authority, Identity

Embeddings = NDArray[np.float32]


@contextmanager
def raw_channel(
    address: str, authority: Authority, identity: Identity | None, *, server_name: str | None = None
) -> Iterator[grpc.Channel]:
    """A TLS channel with a connection of its own and no limits on this side."""
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(),
        identity.key.read_bytes() if identity else None,
        identity.certificate.read_bytes() if identity else None,
    )
    options: list[tuple[str, int | str]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if server_name is not None:
        options.append(("grpc.ssl_target_name_override", server_name))
    with grpc.secure_channel(address, credentials, options=options) as channel:
        yield channel


@dataclass(frozen=True)
class Stubs:
    """Raw stubs of a silo's services on one connection."""

    silo: SiloStub
    alignment: AlignmentStub
    classification: ClassificationStub
    generation: GenerationStub
    channel: grpc.Channel

    @classmethod
    def of(cls, channel: grpc.Channel) -> Stubs:
        return cls(
            SiloStub(channel), AlignmentStub(channel), ClassificationStub(channel), GenerationStub(channel), channel
        )


@contextmanager
def raw_stubs(address: str, authority: Authority, identity: Identity | None) -> Iterator[Stubs]:
    """Raw stubs on a connection of their own."""
    with raw_channel(address, authority, identity) as channel:
        yield Stubs.of(channel)


@contextmanager
def refused(status: grpc.StatusCode, error: type[SealignError] | None, match: str) -> Iterator[None]:
    """Expect a call to end with this status, this class of error (None: gRPC's own) and this message."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    failure = caught.value
    assert isinstance(failure, grpc.Call)
    details = failure.details() or ""
    assert failure.code() == status, details
    if error is not None:
        sent = error_of(failure, "the silo")
        assert type(sent) is error, sent
    assert match in details
    assert len(details) < 2000


@dataclass(frozen=True)
class RawClient:
    """One kind of rows, a plan, a key and stubs, for requests put together by hand."""

    stubs: Stubs
    rows: RowKind
    task: TaskCard
    cipher: Cipher

    @classmethod
    def meet(cls, stubs: Stubs, rows: RowKind, task: str | None = None, batch: int = 1) -> RawClient:
        """A new key under the plan for this number of rows, sent with a first query."""
        request = pb.DescribeTasksRequest(rows=rows_to_wire(rows))
        cards = stubs.classification.DescribeTasks(request, timeout=60).tasks
        card = task_from_wire(next(c for c in cards if task in (None, c.name)), SecurityTable.CLASSICAL)
        plan = next(plan for plan in card.plans if plan.rows == batch)
        client = cls(stubs, rows, card, Cipher(plan, SecretKey.generate(plan.parameters)))
        client.send(client.request(np.eye(1, plan.dimension, dtype=np.float32), with_key=True))
        return client

    @property
    def plan(self) -> PackingPlan:
        return self.cipher.plan

    def at(self, stubs: Stubs) -> RawClient:
        """The same client on another connection."""
        return replace(self, stubs=stubs)

    def request(self, rows: Embeddings, *, with_key: bool = False) -> pb.ClassifyRequest:
        """A good request."""
        request = pb.ClassifyRequest(
            task=self.task.name,
            rows=rows_to_wire(self.rows),
            query=matrix_to_wire(self.cipher.encrypt(rows)),
            revision=self.task.revision,
        )
        if with_key:
            request.key.CopyFrom(public_key_to_wire(self.cipher.key.public_key))
        return request

    def send(self, request: pb.ClassifyRequest) -> pb.ClassifyReply:
        return self.stubs.classification.Classify(request, timeout=60)

    def outputs(self, reply: pb.ClassifyReply, rows: int = 1) -> NDArray[np.float64]:
        """Decrypted outputs of a reply, shape (rows, C)."""
        product = product_from_wire(reply.logits, self.plan.counts[0] * self.plan.counts[2])
        return self.cipher.decrypt(product, rows)


def with_digest(request: pb.ClassifyRequest) -> pb.ClassifyRequest:
    """The request with the digest that its present content should have, as a malicious client would send it."""
    ciphertexts = tuple(SeededCiphertext(c.seed, c.words) for c in request.query.ciphertexts)
    request.query.digest = EncryptedMatrix(request.query.plan, request.query.key_id, ciphertexts).digest()
    return request


def described_services(channel: grpc.Channel, version: str) -> set[str]:
    """Names of all services that a version of gRPC's reflection lists; it describes each of them."""
    ask = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    (reply,) = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=30)
    names = [service.name for service in reply.list_services_response.service]
    questions = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in names]
    for name, reply in zip(names, ask(iter(questions), timeout=30), strict=True):
        files = map(FileDescriptorProto.FromString, reply.file_descriptor_response.file_descriptor_proto)
        assert name in {f"{file.package}.{service.name}" for file in files for service in file.service}
    return set(names)
