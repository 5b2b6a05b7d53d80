"""Raw calls to a silo: requests that Sealign's own client never sends, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from sealign.ckks import Cipher, EncryptedMatrix, PackingPlan, SecretKey, SeededCiphertext
from sealign.encoders import EncoderCard
from sealign.protocol import TaskCard
from sealign.protocol.conversions import matrix_to_wire, product_from_wire, public_key_to_wire
from sealign.protocol.v1 import silo_pb2 as pb
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


@contextmanager
def refused(status: grpc.StatusCode, error: str | None, match: str) -> Iterator[None]:
    """Expect a call to end with this status, this class of error (None: gRPC's own) and this message."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    failure = caught.value
    trailers = {item.key: item.value for item in failure.trailing_metadata() or ()}
    details = failure.details() or ""
    assert (failure.code(), trailers.get("sealign-error")) == (status, error), details
    assert match in details
    assert len(details) < 2000


@dataclass(frozen=True)
class RawClient:
    """One encoder's plan, key and stub, for requests put together by hand."""

    stub: SiloStub
    encoder: EncoderCard
    task: TaskCard
    cipher: Cipher

    @classmethod
    def meet(cls, stub: SiloStub, encoder: EncoderCard, task: TaskCard, rows: int = 1) -> RawClient:
        """A new key under the plan for this number of rows, registered with the silo."""
        plan = next(plan for plan in task.plans if plan.rows == rows)
        client = cls(stub, encoder, task, Cipher(plan, SecretKey.generate(plan.parameters)))
        client.register()
        return client

    @property
    def plan(self) -> PackingPlan:
        return self.cipher.plan

    def register(self) -> None:
        """Upload the public key."""
        key = self.cipher.key.public_key
        reply = self.stub.RegisterKey(pb.RegisterKeyRequest(key=public_key_to_wire(key)), timeout=30)
        assert reply.key_id == key.id

    def request(self, rows: Embeddings) -> pb.ClassifyRequest:
        """A good request."""
        return pb.ClassifyRequest(
            task=self.task.name,
            encoder=self.encoder.fingerprint,
            query=matrix_to_wire(self.cipher.encrypt(rows)),
            revision=self.task.revision,
        )

    def send(self, request: pb.ClassifyRequest) -> pb.ClassifyReply:
        return self.stub.Classify(request, timeout=60)

    def outputs(self, reply: pb.ClassifyReply, rows: int = 1) -> NDArray[np.float64]:
        """Decrypted logits of a reply, shape (rows, C)."""
        return self.cipher.decrypt(product_from_wire(reply.logits), rows)


def with_digest(request: pb.ClassifyRequest) -> pb.ClassifyRequest:
    """The request with the digest that its present content should have, as a malicious client would send it."""
    ciphertexts = tuple(SeededCiphertext(c.seed, c.words) for c in request.query.ciphertexts)
    request.query.digest = EncryptedMatrix(request.query.plan, request.query.key_id, ciphertexts).digest()
    return request
