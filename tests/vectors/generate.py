"""Test vectors of the wire format, for this and every other implementation. PROTOCOL.md says what they mean.

    python -m tests.vectors.generate

All files but product.json are functions of their inputs, and are the same at every run. product.json holds one query
and one reply, which are made with fresh randomness: it changes whenever it is made anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from sealign.ckks import (
    PARAMETER_SETS,
    Block,
    Cipher,
    EncryptedMatrix,
    EncryptedProduct,
    Evaluator,
    PackingPlan,
    ProductShape,
    PublicKey,
    ReplyCiphertext,
    SecretKey,
    SecurityTable,
    SeededCiphertext,
    ZeroPool,
    candidates,
    parameter_set,
    plan_product,
    product_shape,
    replies_per_key,
)
from sealign.ckks.packing import pack_rows, pack_weights
from sealign.ckks.plan import largest_outputs
from sealign.ckks.serialization import Words, pack_words, save_secret_key
from tests.security.attacker import Ring, secret_coefficients
from tests.vectors.signatures import signatures

HERE = Path(__file__).parent
Document = Any


def sha256(values: Words) -> str:
    """The hash of words as 8 bytes each, little-endian."""
    return hashlib.sha256(values.astype("<u8").tobytes()).hexdigest()


def shown(values: Words) -> list[str]:
    """Words as decimal strings: they exceed what every JSON reader holds as a number."""
    return [str(value) for value in values.tolist()]


def plan_fields(plan: PackingPlan) -> Document:
    """A plan as PROTOCOL.md names its fields."""
    fields = asdict(plan)
    fields["parameters"] = plan.parameters.name
    return fields


def parameters() -> Document:
    """Degree, modulus, root of the transform, and what each table says."""
    return [
        {
            "name": one.name,
            "poly_degree": one.poly_degree,
            "modulus": str(one.modulus),
            "root": str(root(one.poly_degree, one.modulus)),
            "spare_coefficients": {table.value: one.spare_coefficients(table) for table in SecurityTable},
            "replies_per_key": {
                table.value: {labels: replies_per_key(one, labels, table=table) for labels in (2, 4, 150)}
                for table in SecurityTable
            },
        }
        for one in PARAMETER_SETS.values()
    ]


def root(poly_degree: int, modulus: int) -> int:
    """The least primitive 2N-th root of unity modulo q, without SEAL."""
    order = 2 * poly_degree
    base = next(
        candidate
        for candidate in (pow(number, (modulus - 1) // order, modulus) for number in range(2, 1000))
        if pow(candidate, poly_degree, modulus) == modulus - 1
    )
    square, power, least = base * base % modulus, base, base
    for _ in range(poly_degree):
        power = power * square % modulus
        least = min(least, power)
    return least


def plans() -> Document:
    """Plans that the planner makes, and one of every field apart, with their names."""
    made = [
        plan_product(ProductShape(*shape, frobenius_norm=16.0, range=11.0, precision=1 / 256))
        for shape in ((1, 768, 4), (1, 768, 150), (64, 768, 10), (1024, 384, 2))
    ]
    made.append(replace(made[0], precision=1 / 16, row_norm=0.5, range=3.25, reply_bits=20))
    return [
        {
            "fields": plan_fields(plan),
            "id": plan.id,
            "grid": plan.grid,
            "dropped_bits": plan.dropped_bits,
            "counts": plan.counts,
            "largest_outputs": largest_outputs(plan),
            "output_positions": plan.block.output_positions.ravel()[:8].tolist(),
        }
        for plan in made
    ]


def packing() -> Document:
    """Small matrices as polynomials of degree 16, and their product."""
    generator = np.random.default_rng(1)
    cases = []
    for rows, dimension, outputs, block in (
        (2, 2, 2, Block(2, 2, 2)),
        (3, 5, 3, Block(2, 3, 2)),
        (1, 16, 1, Block(1, 16, 1)),
    ):
        X = generator.integers(-9, 10, size=(rows, dimension))
        W = generator.integers(-9, 10, size=(dimension, outputs))
        cases.append(
            {
                "poly_degree": 16,
                "block": asdict(block),
                "X": X.tolist(),
                "W": W.tolist(),
                "row_polynomials": pack_rows(X, block, 16).tolist(),
                "weight_polynomials": pack_weights(W, block, 16).tolist(),
                "output_positions": block.output_positions.tolist(),
                "product": (X @ W).tolist(),
            }
        )
    return cases


def words() -> Document:
    """Packed words of several widths."""
    generator = np.random.default_rng(2)
    cases = []
    for bits in (1, 12, 23, 24, 36, 40, 42, 60):
        values = [0, (1 << bits) - 1, 1, *generator.integers(0, 1 << bits, size=6, dtype=np.uint64).tolist()]
        cases.append(
            {
                "bits": bits,
                "words": [str(value) for value in values],
                "packed": pack_words(np.array(values, dtype=np.uint64), bits).hex(),
            }
        )
    return cases


_REJECTING_SEED = (443).to_bytes(64, "little")
"""With ckks-2048-40 one word of its stream is beyond the last whole multiple of q: found by trying."""


def seeds() -> Document:
    """Second polynomials of seeds; the last has a word that is replaced."""
    cases = []
    for name, seed in (
        ("ckks-2048-40", bytes(range(64))),
        ("ckks-2048-36", b"\xff" * 64),
        ("ckks-4096-60", bytes(64)),
        ("ckks-2048-40", _REJECTING_SEED),
    ):
        ring = Ring(parameter_set(name))
        second = ring.expanded(SeededCiphertext(seed, ring.packed(ring.constant(0))))[1]
        cases.append(
            {
                "parameters": name,
                "seed": seed.hex(),
                "first_words": shown(second[:8]),
                "sha256": sha256(second),
                "rejected": [764] if seed == _REJECTING_SEED else [],
            }
        )
    return cases


def transforms() -> Document:
    """Polynomials of few coefficients in NTT form."""
    cases = []
    for name, coefficients in (
        ("ckks-2048-40", {1: 1}),
        ("ckks-2048-40", {0: 5, 3: -2, 2047: 7}),
        ("ckks-4096-36", {17: 1}),
    ):
        ring = Ring(parameter_set(name))
        polynomial = np.zeros(ring.degree, dtype=np.int64)
        polynomial[list(coefficients)] = list(coefficients.values())
        values = ring.forward(polynomial)
        cases.append(
            {
                "parameters": name,
                "coefficients": coefficients,
                "first_words": shown(values[:8]),
                "sha256": sha256(values),
            }
        )
    return cases


def digests() -> Document:
    """Digests of messages, and the name of a public key."""
    key = PublicKey(parameter_set("ckks-2048-36"), SeededCiphertext(bytes(range(64)), bytes(2048 * 36 // 8)))
    query = EncryptedMatrix(
        "00112233445566778899aabbccddeeff",
        key.id,
        (SeededCiphertext(b"s" * 64, b"w" * 9), SeededCiphertext(b"t" * 64, b"")),
    )
    reply = EncryptedProduct(query.plan, query.key_id, (ReplyCiphertext(b"o" * 3, b"m" * 9),))
    return {
        "public_key": {
            "parameters": key.parameters.name,
            "seed": key.seeded.seed.hex(),
            "words": "zeros",
            "id": key.id.hex(),
        },
        "matrix": {
            "plan": query.plan,
            "key_id": query.key_id.hex(),
            "ciphertexts": [{"seed": c.seed.hex(), "words": c.words.hex()} for c in query.ciphertexts],
            "digest": query.digest().hex(),
        },
        "product": {
            "plan": reply.plan,
            "key_id": reply.key_id.hex(),
            "ciphertexts": [{"outputs": c.outputs.hex(), "mask": c.mask.hex()} for c in reply.ciphertexts],
            "digest": reply.digest().hex(),
        },
    }


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def product() -> Document:
    """One key, one query and one reply, with everything that decrypts and checks them."""
    generator = np.random.default_rng(3)
    weight, bias = generator.normal(size=(24, 3)).round(3), generator.normal(size=3).round(3)
    X = generator.normal(size=(2, 24))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).round(4) * 0.99
    shape = product_shape(weight, bias, rows=2, precision=1 / 256)
    plan = next(plan for plan in candidates(shape) if plan.parameters.name == "ckks-2048-36")
    key = SecretKey.generate(plan.parameters)
    cipher, public = Cipher(plan, key), key.public_key
    query = cipher.encrypt(X)
    reply = Evaluator(plan, weight, bias).evaluate(query, ZeroPool(public))
    return {
        "plan": plan_fields(plan) | {"id": plan.id},
        "secret_key": {
            "coefficients": "".join("-0+"[value + 1] for value in secret_coefficients(key)),
            "seal": _encoded(save_secret_key(key._key)),
        },
        "public_key": {"seed": public.seeded.seed.hex(), "words": _encoded(public.seeded.words), "id": public.id.hex()},
        "X": X.tolist(),
        "weight": weight.tolist(),
        "bias": bias.tolist(),
        "query": {
            "ciphertexts": [{"seed": c.seed.hex(), "words": _encoded(c.words)} for c in query.ciphertexts],
            "digest": query.digest().hex(),
        },
        "reply": {
            "ciphertexts": [{"outputs": _encoded(c.outputs), "mask": _encoded(c.mask)} for c in reply.ciphertexts],
            "digest": reply.digest().hex(),
        },
        "outputs": cipher.decrypt(reply, 2).tolist(),
    }


FIXED = {
    "parameters": parameters,
    "plans": plans,
    "packing": packing,
    "words": words,
    "seeds": seeds,
    "transforms": transforms,
    "digests": digests,
    "signatures": signatures,
}


def written(document: Document) -> str:
    """A document as its file holds it."""
    return json.dumps(document, indent=1) + "\n"


def main() -> None:
    """Write every file."""
    for name, make in {**FIXED, "product": product}.items():
        (HERE / f"{name}.json").write_text(written(make()))
        print(f"tests/vectors/{name}.json")


if __name__ == "__main__":
    main()
