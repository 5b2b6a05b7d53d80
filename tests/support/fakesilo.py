"""A small silo on raw stubs, in this process: honest unless a test tampers with its replies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from sealign.alignment import AffineMap, RidgeStatistics, fit_ridge
from sealign.ckks import (
    Evaluator,
    PackingPlan,
    PublicKey,
    SecurityTable,
    StreamedProduct,
    ZeroPool,
    candidates,
    plan_product,
    product_shape,
)
from sealign.encoders import EncoderCard
from sealign.errors import SealignError, UnknownKeyError
from sealign.heads import train_head
from sealign.heads.margins import margins
from sealign.protocol import Limits, MapCard, PublicSetCard, SiloCard, SpaceCard, TaskCard
from sealign.protocol.conversions import alignment as alignment_wire
from sealign.protocol.conversions import types as wire
from sealign.protocol.conversions.classification import task_to_wire
from sealign.protocol.conversions.silo import silo_to_wire
from sealign.protocol.rows import AlignmentOffer, ClientMap, CrossCovariancePart
from sealign.protocol.signing import KeyChange, sign_card
from sealign.protocol.status import status_of, trailers_of
from sealign.protocol.v1 import alignment_pb2, classification_pb2
from sealign.protocol.v1.alignment_pb2_grpc import AlignmentServicer, add_AlignmentServicer_to_server
from sealign.protocol.v1.classification_pb2_grpc import ClassificationServicer, add_ClassificationServicer_to_server
from sealign.protocol.v1.silo_pb2_grpc import SiloServicer, add_SiloServicer_to_server
from tests.support.certificates import Authority, Identity
from tests.support.views import PUBLIC, SILO_DIMENSION, ViewEncoder

if TYPE_CHECKING:
    from sealign_client import Client

TABLE = SecurityTable.CLASSICAL
LABELS = ("red", "green", "blue")
EXAMPLES = tuple(f"example {number}" for number in range(12))

Tamper = Callable[[str, Any], Any]


def honest(method: str, reply: Any) -> Any:
    """Change nothing."""
    del method
    return reply


@dataclass(eq=False)
class FakeSilo(SiloServicer, AlignmentServicer, ClassificationServicer):
    """One space, one task. What was called and what keys came is counted.

    Attributes:
        tamper: is given the method and each reply, and returns what is sent; may raise a `SealignError`.
        relay: the same, of somebody between, who cannot sign.
        key: signs cards.
        calls: names of methods, in order.
        keys: ids of keys that came with requests, in order.
        queries: ids of keys under which queries were encrypted, in order.
        calibrated: what the task card says.
        described: tasks that descriptions were asked for; empty for all.
        preparing: how many times the task's head is still being fitted.
        faulty: tasks that nobody can use.
        asked: what the last card answered.
        revision: of the task.
        answers: function that returns the weight that a query meets, in place of the one that it should.
    """

    tamper: Tamper = honest
    relay: Tamper = honest
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    key_changes: tuple[KeyChange, ...] = ()
    calls: list[str] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    queries: list[bytes] = field(default_factory=list)
    calibrated: bool = True
    drained: list[int] = field(default_factory=list)
    described: list[str] = field(default_factory=list)
    preparing: int = 0
    faulty: tuple[str, ...] = ()
    asked: Any = None
    revision: str = "r1"
    answers: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda weight: weight

    def __post_init__(self) -> None:
        self.encoder = ViewEncoder("the silo's", SILO_DIMENSION)
        self.rows = self.encoder.encode(PUBLIC.texts).astype(np.float64)
        self.public = {PUBLIC.digest: PUBLIC}
        self.maps: list[AffineMap] = []
        self.registrations: dict[str, Any] = {}
        texts = [f"labelled {number}" for number in range(200)]
        labelled = self.encoder.encode(texts)
        labels = ["red" if row[0] > 0.1 else "green" if row[1] > 0 else "blue" for row in labelled]
        self.head = train_head(labelled, labels).head
        self._pools: dict[bytes, ZeroPool] = {}

    # What the client pins and asks for.

    def heads(self, rows: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float]:
        """Weight (d, C), bias and row norm for one kind of rows."""
        kind = wire.rows_from_wire(rows)
        if isinstance(kind.map, ClientMap):
            mean = self.rows.mean(axis=0)
            return self.head.weight, self.head.logits(mean[None])[0], 2.0
        learned = next(learned for learned in self.maps if learned.id == kind.map)
        return learned.weight @ self.head.weight, self.head.logits(learned.intercept[None])[0], 1.0

    def plans(self, rows: Any) -> tuple[PackingPlan, ...]:
        weight, bias, norm = self.heads(rows)
        shapes = (product_shape(weight, bias, rows=count, row_norm=norm) for count in (1, 64))
        return tuple(plan_product(shape) for shape in shapes)

    def Describe(self, request: Any, context: Any) -> Any:  # noqa: N802
        tasks = ("colours", *self.faulty)
        limits = Limits(4096, None, True, True)
        card = SiloCard("fake", "0", "tester", ("embeddings",), tasks, (), limits, self.faulty)
        return self._reply("Describe", context, lambda: silo_to_wire(card, self.key_changes), request)

    def DescribeSpace(self, request: Any, context: Any) -> Any:  # noqa: N802
        sets = tuple(PublicSetCard(digest, len(texts), "views", None, 1) for digest, texts in self.public.items())
        maps = tuple(MapCard.of(learned) for learned in reversed(self.maps))
        return self._reply(
            "DescribeSpace",
            context,
            lambda: alignment_wire.space_to_wire(SpaceCard(request.space, self.encoder.card, sets, maps)),
            request,
        )

    def Align(self, requests: Any, context: Any) -> Any:  # noqa: N802
        header = next(requests).header
        encoder = wire.encoder_from_wire(header.encoder)
        rows = np.concatenate(
            [alignment_wire.rows_from_bytes(part.rows.values, encoder.dimension) for part in requests]
        )
        return self._reply("Align", context, lambda: self._learn(encoder, header.public_set, rows), header)

    def _learn(self, encoder: EncoderCard, public_set: str, rows: Any) -> Any:
        target = self.encoder.encode(self.public[public_set].texts)
        statistics = RidgeStatistics(encoder.dimension, SILO_DIMENSION)
        statistics.update(rows, target)
        learned = fit_ridge(
            statistics,
            source_fingerprint=encoder.fingerprint,
            target_fingerprint=self.encoder.card.fingerprint,
            public_set=public_set,
        )
        self.maps.append(learned)
        return alignment_pb2.AlignReply(map=wire.map_to_wire(MapCard.of(learned)))

    def AlignEncrypted(self, requests: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.calls.append("AlignEncrypted")
        header = next(requests).header
        target = self.rows - self.rows.mean(axis=0)
        rows = header.alignment.encoder.dimension + header.check_rows
        shape = product_shape(target, np.zeros(SILO_DIMENSION), rows=rows, precision=2.0**-12)
        plan = candidates(shape, TABLE, streamed=True)[0]
        yield from self._sent(context, lambda: self._offer(plan), header.alignment)
        if not header.HasField("key"):
            return  # the client comes back with a key of the plan's parameter set
        key = wire.public_key_from_wire(header.key, TABLE)
        self.keys.append(key.id)
        product = StreamedProduct(plan, target, ZeroPool(key))
        for _ in range(plan.counts[1]):
            block = next(requests).block
            product.add(wire.matrix_from_wire(block.rows, plan.counts[0]))
            yield alignment_pb2.AlignEncryptedReply(
                taken=alignment_pb2.BlocksTaken(next_block=product.inner_blocks_done)
            )
        squared = float(np.sum(target**2))
        for index, part in enumerate(product.finish()):
            made = alignment_wire.part_to_wire(CrossCovariancePart(index, part, squared))
            yield from self._sent(context, partial(alignment_pb2.AlignEncryptedReply, product=made))
        confirmed = next(requests, None)
        self.calls.append("ProductReceived" if confirmed is not None else "AlignEncrypted cut")

    def _offer(self, plan: PackingPlan) -> Any:
        offer = alignment_wire.offer_to_wire(AlignmentOffer(b"s" * 16, plan, 0))
        return alignment_pb2.AlignEncryptedReply(offer=offer)

    def _sent(self, context: Any, make: Callable[[], Any], asked: Any = None) -> Iterator[Any]:
        """Yield a reply, tampered with."""
        yield self._tampered("AlignEncrypted", context, make, asked)

    def RegisterMap(self, request: Any, context: Any) -> Any:  # noqa: N802
        name = f"{len(self.registrations):032x}"
        self.registrations[name] = alignment_wire.covariances_from_wire(request, SILO_DIMENSION)
        return self._reply("RegisterMap", context, lambda: alignment_pb2.RegisterMapReply(registration=name))

    def SharedExamples(self, request: Any, context: Any) -> Any:  # noqa: N802
        joined = self.public[request.public_set].joined(EXAMPLES)
        self.public[joined.digest] = joined
        return self._reply("SharedExamples", context, lambda: alignment_pb2.SharedExamplesReply(texts=EXAMPLES))

    def DescribeTasks(self, request: Any, context: Any) -> Any:  # noqa: N802
        def make() -> Any:
            plans = self.plans(request.rows) if request.HasField("rows") else ()
            card = TaskCard(
                "colours", "", LABELS, 1.0, 0.9, {"energy": 0.0}, plans, self.revision, calibrated=self.calibrated
            )  # fmt: skip
            self.described.append(request.task)
            if self.preparing:
                self.preparing -= 1
                card = replace(card, plans=(), revision="", preparing=True)
            return classification_pb2.DescribeTasksReply(tasks=[task_to_wire(card)])

        return self._reply("DescribeTasks", context, make, request.rows)

    def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._reply("Classify", context, lambda: self._evaluated(request))

    def ClassifyStream(self, requests: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.calls.append("ClassifyStream")
        count = 0
        for request in requests:
            count += 1
            yield self._tampered("ClassifyStream", context, partial(self._evaluated, request))
        self.drained.append(count)

    def _evaluated(self, request: Any) -> Any:
        if request.HasField("key"):
            key: PublicKey = wire.public_key_from_wire(request.key, TABLE)
            self.keys.append(key.id)
            self._pools[key.id] = ZeroPool(key)
        if request.query.key_id not in self._pools:
            raise UnknownKeyError("send the key")
        self.queries.append(request.query.key_id)
        weight, bias, _ = self.heads(request.rows)
        plan = next(plan for plan in self.plans(request.rows) if plan.id == request.query.plan)
        query = wire.matrix_from_wire(request.query, plan.counts[0] * plan.counts[1])
        product = Evaluator(plan, self.answers(weight), bias).evaluate(query, self._pools[request.query.key_id])
        return classification_pb2.ClassifyReply(logits=wire.product_to_wire(product), server_micros=1)

    def retrain(self, *, say_so: bool = True) -> None:
        """Serve another head, under another revision if the silo says so."""
        self.head = replace(self.head, weight=-self.head.weight, bias=-self.head.bias)
        if say_so:
            self.revision += "+"

    def forget_keys(self) -> None:
        """Forget all keys, as a restart does."""
        self._pools.clear()

    def _reply(self, method: str, context: Any, make: Callable[[], Any], asked: Any = None) -> Any:
        self.calls.append(method)
        return self._tampered(method, context, make, asked)

    def sign(self, content: bytes) -> tuple[bytes, bytes]:
        return self.key.public_key().public_bytes_raw(), self.key.sign(content)

    def _tampered(self, method: str, context: Any, make: Callable[[], Any], asked: Any = None) -> Any:
        try:
            reply = self.tamper(method, make())
            if asked is not None:
                self.asked = asked
                offer = [reply.offer] if method == "AlignEncrypted" else [reply]
                for card in reply.tasks if method == "DescribeTasks" else offer:
                    sign_card(card, asked, self)
            return self.relay(method, reply)
        except SealignError as error:
            context.set_trailing_metadata(trailers_of(error))
            context.abort(status_of(error), str(error))
        except BareStatusError as bare:
            context.abort(bare.code, "")


class BareStatusError(Exception):
    """A status without details, as gRPC's core gives it."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Address:
    """Where a fake silo listens."""

    port: int
    authority: Authority

    def settings(self, **fields: Any) -> dict[str, Any]:
        """Settings of a client, as keyword arguments."""
        return {"silo": f"localhost:{self.port}", "tls_ca": self.authority.certificate, **fields}


@contextmanager
def serving_fake(silo: FakeSilo, authority: Authority, identity: Identity, port: int = 0) -> Iterator[Address]:
    """Serve over TLS on any free port."""
    server = grpc.server(ThreadPoolExecutor(8))
    add_SiloServicer_to_server(silo, server)
    add_AlignmentServicer_to_server(silo, server)
    add_ClassificationServicer_to_server(silo, server)
    pair = (identity.key.read_bytes(), identity.certificate.read_bytes())
    bound = server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield Address(bound, authority)
    finally:
        server.stop(None).wait()


def silo_files(directory: Path) -> tuple[Authority, Identity]:
    """An authority and the certificate of a silo on this machine."""
    authority = Authority(directory)
    return authority, authority.issue("silo", "localhost", "127.0.0.1")


def clear_labels(fake: FakeSilo, client: Client, texts: Sequence[str]) -> tuple[list[str], NDArray[np.bool_]]:
    """Labels as the silo would give them without encryption, and which of them are certain, (n,).

    No logit is off by more than the promised precision: two that are twice as far apart keep their order.
    """
    described = client.describe()
    assert described.map is not None
    (learned,) = (learned for learned in fake.maps if learned.id == described.map.id)
    logits = fake.head.logits(learned.apply(client.encoder.encode(texts)))
    certain = margins(logits) > 2 * max(plan.precision for plan in described.tasks[0].plans)
    return [LABELS[winner] for winner in logits.argmax(axis=1)], certain
