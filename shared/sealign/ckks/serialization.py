"""SEAL objects as bytes: the only module that knows SEAL's containers.

SEAL saves to and loads from paths; each thread has a file for it (`scratch`). A container is a 16-byte header (magic
number, version, compression, total length) and a body. Bodies from the wire are never handed to SEAL:
the wire carries bare words and seeds, and the container around them is written here, uncompressed, so
that a malformed header, a compression bomb or foreign parameters cannot be expressed.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray
from tenseal import sealapi

from sealign.ckks.messages import SEED_BYTES, SeededCiphertext
from sealign.ckks.parameters import ParameterSet
from sealign.ckks.scratch import scratch
from sealign.errors import InvalidInputError

Words = NDArray[np.uint64]

_HEADER = struct.Struct("<HBBBBHQ")  # magic, header size, major, minor, compression, reserved, total size
_MAGIC = 0xA15E
_UNCOMPRESSED, _ZSTD = 0, 2
_LIMIT = 1 << 28
# parms_id, NTT flag, polynomials, N, moduli, scale, correction factor
_CIPHERTEXT = struct.Struct("<4QBQQQdQ")
_COUNT = struct.Struct("<Q")
_PRNG_BLAKE2XB = 1


class _Saved(Protocol):
    def save(self, path: str) -> None: ...


class _Loaded(Protocol):
    def load(self, context: Any, path: str) -> None: ...


_Object = TypeVar("_Object", bound=_Loaded)


def _save(saved: _Saved) -> tuple[bytes, bytes]:
    """SEAL's container as (header, uncompressed body). The binding cannot save uncompressed."""
    file = scratch()
    saved.save(file.path)
    container = file.read()
    header, body = container[: _HEADER.size], container[_HEADER.size :]
    if _HEADER.unpack(header)[4] == _ZSTD:
        size = zstandard.frame_content_size(body)
        body = zstandard.ZstdDecompressor().decompress(body, max_output_size=_LIMIT if size < 0 else size)
    return header, body


@lru_cache(maxsize=1)
def _version() -> tuple[int, int]:
    """Version of the SEAL that is linked, as its own containers state it."""
    header, _ = _save(sealapi.Plaintext())
    _, _, major, minor, *_ = _HEADER.unpack(header)
    return major, minor


def _container(body: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, _HEADER.size, *_version(), _UNCOMPRESSED, 0, _HEADER.size + len(body)) + body


def _load(into: _Object, context: sealapi.SEALContext, body: bytes) -> _Object:
    file = scratch()
    file.write(_container(body))
    into.load(context, file.path)
    return into


def _ciphertext_body(context: sealapi.SEALContext, words: Words, ntt: bool, tail: bytes = b"") -> bytes:
    """Body of a two-polynomial ciphertext; ``words`` holds both, or the first and ``tail`` the seed."""
    poly_degree = words.shape[-1]
    fixed = _CIPHERTEXT.pack(*context.first_parms_id(), ntt, 2, poly_degree, 1, 1.0, 1)
    array = _container(_COUNT.pack(words.size) + np.ascontiguousarray(words, dtype="<u8").tobytes())
    return fixed + array + tail


def ciphertext_words(ciphertext: sealapi.Ciphertext) -> Words:
    """Words of a ciphertext, shape (2, N), in whichever form (NTT or coefficient) it is in."""
    _, body = _save(ciphertext)
    offset = _CIPHERTEXT.size + _HEADER.size + _COUNT.size
    return np.frombuffer(body, dtype="<u8", offset=offset).reshape(2, -1)


def ciphertext_from_coefficients(context: sealapi.SEALContext, words: Words) -> sealapi.Ciphertext:
    """A ciphertext in coefficient form from its words, shape (2, N), each below the modulus."""
    return _load(sealapi.Ciphertext(), context, _ciphertext_body(context, words, ntt=False))


def ciphertext_from_residues(context: sealapi.SEALContext, words: Words) -> sealapi.Ciphertext:
    """A ciphertext in NTT form from its words, shape (2, N), each below the modulus: for sums made here, not there."""
    return _load(sealapi.Ciphertext(), context, _ciphertext_body(context, words, ntt=True))


def seeded_words(serializable: Any) -> tuple[bytes, Words]:
    """Seed (64 bytes) and first polynomial, shape (N,), of a seeded symmetric encryption."""
    _, body = _save(serializable)
    offset = _CIPHERTEXT.size + _HEADER.size
    (count,) = _COUNT.unpack_from(body, offset)
    words = np.frombuffer(body, dtype="<u8", count=count, offset=offset + _COUNT.size)
    return body[-SEED_BYTES:], words


def load_seeded(
    into: _Object,
    context: sealapi.SEALContext,
    parameters: ParameterSet,
    seeded: SeededCiphertext,
    what: str,
) -> _Object:
    """Expand seeded words from the wire into a SEAL ciphertext or public key (``what`` names it in errors).

    Raises:
        InvalidInputError: wrong lengths (not seeded, truncated, oversized, foreign parameters) or words
            that are not residues of the modulus.
    """
    degree, bits = parameters.poly_degree, parameters.modulus_bits
    expected = packed_size(degree, bits)
    if len(seeded.seed) != SEED_BYTES or len(seeded.words) != expected:
        raise InvalidInputError(
            f"a {what} of {parameters.name} must be a {SEED_BYTES}-byte seed and {expected} bytes of words, but "
            f"{len(seeded.seed)} and {len(seeded.words)} bytes came: it is truncated, not in seeded form, or made "
            "under other parameters. Make it anew under the plan that the silo publishes."
        )
    words = unpack_words(seeded.words, degree, bits)
    if int(words.max()) >= parameters.modulus:
        raise InvalidInputError(
            f"a {what} holds words that are not residues of the modulus of {parameters.name}: it is damaged or was "
            "made under other parameters. Make it anew under the plan that the silo publishes."
        )
    seed = _container(bytes([_PRNG_BLAKE2XB]) + seeded.seed)
    return _load(into, context, _ciphertext_body(context, words, ntt=True, tail=seed))


def save_secret_key(key: sealapi.SecretKey) -> bytes:
    """The secret key's uncompressed body."""
    body = _save(key)[1]
    scratch().write(b"")
    return body


def load_secret_key(context: sealapi.SEALContext, body: bytes) -> sealapi.SecretKey:
    """A secret key from :func:`save_secret_key`; SEAL refuses one of other parameters.

    Raises:
        InvalidInputError: the bytes are not a secret key of this parameter set.
    """
    try:
        return _load(sealapi.SecretKey(), context, body)
    except (RuntimeError, ValueError) as error:
        raise InvalidInputError("the bytes are not a secret key of this parameter set") from error
    finally:
        scratch().write(b"")


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` words of ``bits`` bits take when packed."""
    return (count * bits + 7) // 8


def pack_words(words: Words, bits: int) -> bytes:
    """Words below 2^bits, shape (n,), at their true width, little-endian."""
    octets = np.ascontiguousarray(words, dtype="<u8").view(np.uint8)
    if bits % 8 == 0:
        return octets.reshape(-1, 8)[:, : bits // 8].tobytes()
    return np.packbits(np.unpackbits(octets, bitorder="little").reshape(-1, 64)[:, :bits], bitorder="little").tobytes()


def unpack_words(packed: bytes, count: int, bits: int) -> Words:
    """What :func:`pack_words` packed: shape (count,)."""
    flat = np.frombuffer(packed, dtype=np.uint8)
    if bits % 8 == 0:
        octets = np.zeros((count, 8), dtype=np.uint8)
        octets[:, : bits // 8] = flat.reshape(count, bits // 8)
        return octets.view("<u8").reshape(count)
    spread = np.zeros((count, 64), dtype=np.uint8)
    spread[:, :bits] = np.unpackbits(flat, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(spread, bitorder="little").view("<u8")
