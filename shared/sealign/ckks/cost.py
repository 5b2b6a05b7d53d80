"""The predicted cost of a request: bytes, products, time and memory."""

from __future__ import annotations

from dataclasses import dataclass

from sealign.ckks.messages import SEED_BYTES
from sealign.ckks.packing import Block
from sealign.ckks.serialization import packed_size

# Server and client time of one coefficient in nanoseconds: rounded from profiles of the stages on one core of a
# 2-core x86-64 machine. They steer the choice of a plan, and only their ratios matter to it.
_EXPAND_NS, _MULTIPLY_NS, _SANITISE_NS, _ZERO_NS = 60.0, 9.0, 145.0, 135.0
_ENCRYPT_NS, _DECRYPT_NS = 280.0, 140.0
_ENCODE_NS = 50.0
_UNALIGNED = 1.4
"""The factor for words that are not whole bytes: they take longer to pack."""
_LINK_BYTES_PER_MS = 12_500.0
"""The link the plan is optimised for: 100 Mbit/s."""


@dataclass(frozen=True)
class Cost:
    """Predicted cost of one request."""

    request_bytes: int
    reply_bytes: int
    products: int
    requests: int
    replies: int
    server_ms: float
    client_ms: float
    weight_bytes: int
    """Memory of the silo's encoded weights."""
    weight_ms: float
    """Server time to encode the weights: once, or in every request where they are streamed."""
    accumulator_bytes: int
    """Memory of the silo's sums where the request is streamed."""

    @property
    def milliseconds(self) -> float:
        """Client, wire (100 Mbit/s) and server time, one after the other."""
        wire = (self.request_bytes + self.reply_bytes) / _LINK_BYTES_PER_MS
        return self.client_ms + wire + self.server_ms

    @property
    def weighed_ms(self) -> float:
        """What the planner minimises. The silo's time counts twice: all clients share its cores."""
        return self.milliseconds + self.server_ms

    @classmethod
    def of(
        cls, block: Block, counts: tuple[int, int, int], poly_degree: int, modulus_bits: int, reply_bits: int
    ) -> Cost:
        """Predict the cost of one request with so many row, inner and output blocks."""
        row_blocks, inner_blocks, output_blocks = counts
        requests, replies = row_blocks * inner_blocks, row_blocks * output_blocks
        sent, returned = (_UNALIGNED if bits % 8 else 1.0 for bits in (modulus_bits, reply_bits))
        products = requests * output_blocks
        outputs = packed_size(block.rows * block.outputs, reply_bits)
        reply_ns = returned * _SANITISE_NS + _ZERO_NS
        server_ns = sent * requests * _EXPAND_NS + replies * reply_ns + products * _MULTIPLY_NS
        return cls(
            request_bytes=requests * (SEED_BYTES + packed_size(poly_degree, modulus_bits)),
            reply_bytes=replies * (outputs + packed_size(poly_degree, reply_bits)),
            products=products,
            requests=requests,
            replies=replies,
            server_ms=poly_degree * server_ns / 1e6,
            client_ms=poly_degree * (sent * requests * _ENCRYPT_NS + returned * replies * _DECRYPT_NS) / 1e6,
            weight_bytes=inner_blocks * output_blocks * poly_degree * 8,
            weight_ms=inner_blocks * output_blocks * poly_degree * _ENCODE_NS / 1e6,
            accumulator_bytes=replies * poly_degree * 16,
        )
