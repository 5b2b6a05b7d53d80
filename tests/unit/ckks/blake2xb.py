"""BLAKE2Xb, written from its specification, to derive SEAL's seeded polynomials without SEAL.

Sources: RFC 7693 (BLAKE2b, sections 2 and 3) and "BLAKE2X" (Aumasson et al., 2016, section 2). `hashlib`
covers the root hash; it refuses the tree depth 0 that BLAKE2X gives to output blocks, hence this module.
"""

from __future__ import annotations

import hashlib
import struct

_MASK = (1 << 64) - 1
_IV = (
    0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
)  # fmt: skip
_SIGMA = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4), (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13), (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11), (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5), (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)  # fmt: skip
_LANES = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def _rotated(word: int, bits: int) -> int:
    return (word >> bits) | (word << (64 - bits)) & _MASK


def _single_block(message: bytes, parameter_block: bytes) -> bytes:
    """BLAKE2b of at most 128 bytes under a 64-byte parameter block (RFC 7693, section 3.2)."""
    state = [iv ^ word for iv, word in zip(_IV, struct.unpack("<8Q", parameter_block), strict=True)]
    m = struct.unpack("<16Q", message.ljust(128, b"\0"))
    v = [*state, *_IV]
    v[12] ^= len(message)
    v[14] ^= _MASK
    for round_ in range(12):
        schedule = _SIGMA[round_ % 10]
        for lane, (a, b, c, d) in enumerate(_LANES):
            v[a] = (v[a] + v[b] + m[schedule[2 * lane]]) & _MASK
            v[d] = _rotated(v[d] ^ v[a], 32)
            v[c] = (v[c] + v[d]) & _MASK
            v[b] = _rotated(v[b] ^ v[c], 24)
            v[a] = (v[a] + v[b] + m[schedule[2 * lane + 1]]) & _MASK
            v[d] = _rotated(v[d] ^ v[a], 16)
            v[c] = (v[c] + v[d]) & _MASK
            v[b] = _rotated(v[b] ^ v[c], 63)
    return struct.pack("<8Q", *(state[i] ^ v[i] ^ v[i + 8] for i in range(8)))


def blake2b(message: bytes) -> bytes:
    """Plain BLAKE2b-512 of at most 128 bytes, to check this module against `hashlib`."""
    return _single_block(message, bytes([64, 0, 1, 1]).ljust(64, b"\0"))


def blake2xb(message: bytes, key: bytes, length: int) -> bytes:
    """``length`` bytes (a multiple of 64) of BLAKE2Xb of ``message`` under ``key``."""
    root = hashlib.blake2b(message, key=key, node_offset=length << 32).digest()
    blocks = []
    for index in range(length // 64):
        # digest 64, key 0, fanout 0, depth 0, leaf 64, node offset, output length, node depth 0, inner 64
        block = struct.pack("<BBBBIIIBB", 64, 0, 0, 0, 64, index, length, 0, 64).ljust(64, b"\0")
        blocks.append(_single_block(root, block))
    return b"".join(blocks)


def expanded_seed(seed: bytes, words: int) -> list[int]:
    """The first 64-bit words of SEAL's Blake2xbPRNG under a 64-byte seed: 4096-byte buffers, counted from 0."""
    buffers = -(-words // 512)
    stream = b"".join(blake2xb(counter.to_bytes(8, "little"), seed, 4096) for counter in range(buffers))
    return list(struct.unpack_from(f"<{words}Q", stream))
