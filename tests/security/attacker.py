"""What a malicious client computes with, and the unsanitised product that the silo never sends.

Only private pieces give the latter: there is no public way to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from sealign.ckks import (
    Cipher,
    EncryptedMatrix,
    EncryptedProduct,
    PackingPlan,
    ParameterSet,
    PublicKey,
    ReplyCiphertext,
    SecretKey,
    SeededCiphertext,
)
from sealign.ckks.backend import backend
from sealign.ckks.serialization import (
    Words,
    _ciphertext_body,
    _load,
    ciphertext_from_coefficients,
    ciphertext_words,
    load_seeded,
    pack_words,
    unpack_words,
)
from tests.unit.ckks.parties import Floats, Parties

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Ring:
    """Arithmetic modulo X^N + 1 and q, with SEAL's number-theoretic transform. Polynomials have shape (N,)."""

    parameters: ParameterSet

    @property
    def degree(self) -> int:
        return self.parameters.poly_degree

    def ciphertext(self, first: Words, second: Words) -> sealapi.Ciphertext:
        """Any two polynomials in NTT form as a ciphertext: what the wire cannot express."""
        context = backend(self.parameters).context
        return _load(sealapi.Ciphertext(), context, _ciphertext_body(context, np.stack([first, second]), ntt=True))

    def public_key(self, first: Words, second: Words) -> sealapi.PublicKey:
        """Any two polynomials in NTT form as a public key: what the wire cannot express."""
        context = backend(self.parameters).context
        return _load(sealapi.PublicKey(), context, _ciphertext_body(context, np.stack([first, second]), ntt=True))

    def forward(self, coefficients: NDArray[np.int64]) -> Words:
        """Integer coefficients to NTT form."""
        words: Words = np.ones((2, self.degree), dtype=np.uint64)
        words[0] = (coefficients % self.parameters.modulus).astype(np.uint64)
        ciphertext = ciphertext_from_coefficients(backend(self.parameters).context, words)
        backend(self.parameters).evaluator.transform_to_ntt_inplace(ciphertext)
        transformed: Words = ciphertext_words(ciphertext)[0]
        return transformed

    def inverse(self, words: Words) -> Integers:
        """NTT form to coefficients in (-q/2, q/2)."""
        ciphertext = self.ciphertext(words, np.ones_like(words))
        backend(self.parameters).evaluator.transform_from_ntt_inplace(ciphertext)
        return self.centred(ciphertext_words(ciphertext)[0])

    def centred(self, words: Words) -> Integers:
        """Residues as integers in (-q/2, q/2)."""
        residues = words.astype(np.int64)
        centred: Integers = np.where(
            residues > self.parameters.modulus // 2, residues - self.parameters.modulus, residues
        )
        return centred

    def times(self, x: Words, y: Words) -> Words:
        """Product of two polynomials in NTT form."""
        product: Words = (x.astype(object) * y.astype(object) % self.parameters.modulus).astype(np.uint64)
        return product

    def minus(self, x: Words, y: Words) -> Words:
        """Difference of two polynomials in NTT form."""
        return ((x.astype(np.int64) - y.astype(np.int64)) % self.parameters.modulus).astype(np.uint64)

    def quotient(self, x: Words, y: Words) -> Words:
        """x / y for polynomials in NTT form, y without a zero (as good as certain for a hash)."""
        inverses = np.array([pow(int(word), -1, self.parameters.modulus) for word in y], dtype=object)
        return self.times(x, inverses)

    def constant(self, value: int) -> Words:
        """The constant polynomial in NTT form."""
        return np.full(self.degree, value % self.parameters.modulus, dtype=np.uint64)

    def packed(self, words: Words) -> bytes:
        """Words as they cross the wire."""
        return pack_words(words, self.parameters.modulus_bits)

    def expanded(self, seeded: SeededCiphertext | PublicKey) -> Words:
        """Both polynomials of a seeded object in NTT form, shape (2, N)."""
        seeded = seeded.seeded if isinstance(seeded, PublicKey) else seeded
        context = backend(self.parameters).context
        return ciphertext_words(load_seeded(sealapi.Ciphertext(), context, self.parameters, seeded, "ciphertext"))


def unsanitised(parties: Parties, query: list[sealapi.Ciphertext]) -> list[sealapi.Ciphertext]:
    """The bare products of one block row, one for each output block: no zero, no flood, all coefficients."""
    evaluator = backend(parties.plan.parameters).evaluator
    totals = []
    for output_block in range(parties.plan.counts[2]):
        products = []
        for ciphertext, blocks in zip(query, parties.evaluator._weights, strict=True):
            products.append(sealapi.Ciphertext())
            evaluator.multiply_plain(ciphertext, blocks[output_block], products[-1])
        for product in products[1:]:
            evaluator.add_inplace(products[0], product)
        totals.append(products[0])
    return totals


def loaded(parties: Parties, query: EncryptedMatrix) -> list[sealapi.Ciphertext]:
    """The ciphertexts of a query as the silo expands them."""
    parameters = parties.plan.parameters
    context = backend(parameters).context
    return [load_seeded(sealapi.Ciphertext(), context, parameters, c, "ciphertext") for c in query.ciphertexts]


def received_mask(plan: PackingPlan, reply: ReplyCiphertext) -> Words:
    """The reply's second polynomial in NTT form, as good as the client has it."""
    ring = Ring(plan.parameters)
    kept = unpack_words(reply.mask, ring.degree, plan.reply_bits)
    return ring.forward((kept << np.uint64(plan.dropped_bits)).astype(np.int64) + (1 << (plan.dropped_bits - 1)))


def received_outputs(plan: PackingPlan, reply: ReplyCiphertext) -> Integers:
    """The reply's output coefficients, shape (b·c,), in (-q/2, q/2)."""
    kept = unpack_words(reply.outputs, plan.block.rows * plan.block.outputs, plan.reply_bits)
    return Ring(plan.parameters).centred((kept << np.uint64(plan.dropped_bits)) + np.uint64(1 << plan.dropped_bits - 1))


def unrounded(cipher: Cipher, product: EncryptedProduct) -> Floats:
    """Outputs of a single row as the key decrypts them, shape (C,): what clients can compute, no cipher returns."""
    values = np.concatenate([cipher._outputs(reply) for reply in product.ciphertexts]) / cipher.plan.output_scale
    outputs: Floats = values[: cipher.plan.outputs]
    return outputs


def weights_in(plan: PackingPlan, polynomials: list[Integers]) -> Integers:
    """Weights (d, C) read off the weight polynomials of a plan with one inner block."""
    k, c = plan.block.inner, plan.block.outputs
    columns = np.concatenate([polynomial[: k * c].reshape(c, k) for polynomial in polynomials])
    weights: Integers = columns[: plan.outputs, : plan.dimension].T
    return weights


def true_weights(parties: Parties) -> Integers:
    """The silo's weights as integers, shape (d, C)."""
    return np.rint(parties.weight * 2.0**parties.plan.weight_scale_bits).astype(np.int64)


def secret_coefficients(key: SecretKey) -> Integers:
    """The ternary secret, shape (N,): the decryption of one in the second polynomial."""
    working = backend(key.parameters)
    words = np.zeros((2, key.parameters.poly_degree), dtype=np.uint64)
    words[1, 0] = 1
    ciphertext = ciphertext_from_coefficients(working.context, words)
    working.evaluator.transform_to_ntt_inplace(ciphertext)
    coefficients: Integers = np.rint(working.decode(key.decrypt(ciphertext))).astype(np.int64)
    return coefficients


def correlation(guess: NDArray[np.floating] | Integers, truth: Floats | Integers) -> float:
    """|Pearson correlation|: 1 for recovered weights, about 1/√n for noise."""
    return float(abs(np.corrcoef(guess.ravel().astype(float), truth.ravel().astype(float))[0, 1]))


def noise_level(count: int) -> float:
    """Correlation that noise over ``count`` values exceeds with probability 6e-7 (five deviations)."""
    return float(5 / np.sqrt(count))


def with_ciphertexts(query: EncryptedMatrix, *ciphertexts: SeededCiphertext) -> EncryptedMatrix:
    """The query with other ciphertexts in it."""
    return replace(query, ciphertexts=ciphertexts)
