"""The test vectors of the wire format: this code reproduces every one. PROTOCOL.md describes them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tenseal import sealapi

from sealign.ckks import (
    Block,
    Cipher,
    EncryptedMatrix,
    EncryptedProduct,
    Evaluator,
    PackingPlan,
    PublicKey,
    ReplyCiphertext,
    SecretKey,
    SeededCiphertext,
    ZeroPool,
    parameter_set,
)
from sealign.ckks.backend import backend
from sealign.ckks.serialization import load_secret_key, load_seeded, unpack_words
from tests.security.attacker import secret_coefficients
from tests.unit.ckks.blake2xb import expanded_seed
from tests.vectors import generate

COMMAND = "run: python -m tests.vectors.generate"


def stored(name: str) -> Any:
    return json.loads((generate.HERE / f"{name}.json").read_text())


@pytest.mark.parametrize("name", generate.FIXED)
def test_files_are_what_the_code_makes(name: str) -> None:
    assert generate.written(generate.FIXED[name]()) == (generate.HERE / f"{name}.json").read_text(), COMMAND


def plan_of(fields: dict[str, Any]) -> PackingPlan:
    fields = {name: value for name, value in fields.items() if name != "id"}
    return PackingPlan(
        **fields | {"parameters": parameter_set(fields["parameters"]), "block": Block(**fields["block"])}
    )


@pytest.mark.parametrize("case", stored("plans"), ids=lambda case: case["id"])
def test_plan_ids_follow_from_the_fields_alone(case: dict[str, Any]) -> None:
    """Written from PROTOCOL.md, without the code that it describes."""
    fields = case["fields"]
    one = parameter_set(fields["parameters"])
    content = struct.pack("<IQ", one.poly_degree, one.modulus)
    content += struct.pack("<3I", *(fields[name] for name in ("rows", "dimension", "outputs")))
    content += struct.pack("<3I", *(fields["block"][name] for name in ("rows", "inner", "outputs")))
    content += struct.pack("<3H", *(fields[f"{name}_bits"] for name in ("input_scale", "weight_scale", "reply")))
    content += struct.pack("<3d", *(fields[name] for name in ("range", "precision", "row_norm")))
    assert len(content) == 66
    assert hashlib.sha256(b"sealign plan v1\0" + content).hexdigest()[:32] == case["id"]
    assert plan_of(fields).id == case["id"]


@pytest.mark.parametrize("case", stored("seeds"), ids=lambda case: f"{case['parameters']}-{case['seed'][:4]}")
def test_seeds_expand_without_seal(case: dict[str, Any]) -> None:
    """BLAKE2Xb, 8 bytes a word; words from the last incomplete multiple of q on are replaced by what follows."""
    one = parameter_set(case["parameters"])
    largest = (1 << 64) - 1
    limit = largest - largest % one.modulus - 1
    stream = expanded_seed(bytes.fromhex(case["seed"]), one.poly_degree + 8)
    words, spare = stream[: one.poly_degree], iter(stream[one.poly_degree :])
    rejected = [index for index, word in enumerate(words) if word >= limit]
    for index in rejected:
        words[index] = next(word for word in spare if word < limit)
    assert rejected == case["rejected"]
    residues = np.array([word % one.modulus for word in words], dtype="<u8")
    assert [str(word) for word in residues[:8]] == case["first_words"]
    assert generate.sha256(residues) == case["sha256"]


@pytest.mark.parametrize("index", range(len(generate.transforms())))
def test_transforms_are_values_at_odd_powers_of_the_root(index: int) -> None:
    """Word i of the NTT form is the value at ψ^(2·r(i) + 1), r(i) being i with its log2 N bits reversed."""
    case = stored("transforms")[index]
    one = next(p for p in stored("parameters") if p["name"] == case["parameters"])
    q, degree, psi = int(one["modulus"]), one["poly_degree"], int(one["root"])
    bits = degree.bit_length() - 1
    for i, word in enumerate(case["first_words"]):
        point = pow(psi, 2 * int(f"{i:0{bits}b}"[::-1], 2) + 1, q)
        value = sum(factor * pow(point, int(power), q) for power, factor in case["coefficients"].items()) % q
        assert str(value) == word


class TestKnownAnswer:
    """product.json: a key, a query and a reply from another day."""

    document = stored("product")
    plan = plan_of(document["plan"])
    X, weight, bias = np.array(document["X"]), np.array(document["weight"]), np.array(document["bias"])

    @pytest.fixture
    def key(self) -> SecretKey:
        body = base64.b64decode(self.document["secret_key"]["seal"])
        key = SecretKey(self.plan.parameters, load_secret_key(backend(self.plan.parameters).context, body))
        public = self.document["public_key"]
        seeded = SeededCiphertext(bytes.fromhex(public["seed"]), base64.b64decode(public["words"]))
        key.public_key = PublicKey(self.plan.parameters, seeded)
        assert key.public_key.id.hex() == public["id"]
        return key

    def _query(self, key: SecretKey) -> EncryptedMatrix:
        query = self.document["query"]
        ciphertexts = [
            SeededCiphertext(bytes.fromhex(c["seed"]), base64.b64decode(c["words"])) for c in query["ciphertexts"]
        ]
        matrix = EncryptedMatrix(self.plan.id, key.public_key.id, tuple(ciphertexts))
        assert matrix.digest().hex() == query["digest"]
        return matrix

    def test_plan_and_secret(self, key: SecretKey) -> None:
        assert self.plan.id == self.document["plan"]["id"]
        shown = "".join("-0+"[value + 1] for value in secret_coefficients(key))
        assert shown == self.document["secret_key"]["coefficients"]

    def test_the_query_decrypts_to_the_rows(self, key: SecretKey) -> None:
        """Ciphertext by ciphertext: X[i, j] at coefficient i·k·c + k-1-j, but for errors of a few units."""
        block, working = self.plan.block, backend(self.plan.parameters)
        rows = np.rint(self.X * 2.0**self.plan.input_scale_bits)
        for seeded in self._query(key).ciphertexts:
            loaded = load_seeded(sealapi.Ciphertext(), working.context, self.plan.parameters, seeded, "ciphertext")
            values = working.decode(key.decrypt(loaded))
            for i in range(len(self.X)):
                for j in range(self.plan.dimension):
                    place = i * block.inner * block.outputs + block.inner - 1 - j
                    assert abs(values[place] - rows[i, j]) < 30

    def test_the_reply_decrypts_to_the_outputs(self, key: SecretKey) -> None:
        reply = self.document["reply"]
        ciphertexts = [
            ReplyCiphertext(base64.b64decode(c["outputs"]), base64.b64decode(c["mask"])) for c in reply["ciphertexts"]
        ]
        product = EncryptedProduct(self.plan.id, key.public_key.id, tuple(ciphertexts))
        assert product.digest().hex() == reply["digest"]
        Y = Cipher(self.plan, key).decrypt(product, len(self.X))
        assert Y.tolist() == self.document["outputs"]
        assert np.abs(Y - (self.X @ self.weight + self.bias)).max() <= self.plan.precision

    def test_the_reply_decrypts_without_seal(self) -> None:
        """c0 + c1·s modulo X^N + 1 and q at the output coefficients, by the formulas of PROTOCOL.md."""
        plan, q = self.plan, self.plan.parameters.modulus
        secret = ["-0+".index(sign) - 1 for sign in self.document["secret_key"]["coefficients"]]
        positions, middle = plan.block.output_positions.ravel().tolist(), 1 << (plan.dropped_bits - 1)
        found = []
        for reply in self.document["reply"]["ciphertexts"]:
            c0, c1 = (
                [
                    min((int(word) << plan.dropped_bits) + middle, q - 1)
                    for word in unpack_words(base64.b64decode(reply[name]), count, plan.reply_bits)
                ]
                for name, count in (("outputs", len(positions)), ("mask", len(secret)))
            )
            for place, position in enumerate(positions):
                total = c0[place]
                for j, s in enumerate(secret):
                    total += s * (c1[position - j] if j <= position else -c1[position - j + len(secret)])
                centred = (total + q // 2) % q - q // 2
                found.append(round(centred / (plan.output_scale * plan.grid)) * plan.grid)
        expected = np.array(self.document["outputs"])
        _, _, output_blocks = plan.counts
        grid = np.array(found).reshape(-1, output_blocks, plan.block.rows, plan.block.outputs).transpose(0, 2, 1, 3)
        outputs = grid.reshape(-1, output_blocks * plan.block.outputs)[: len(expected), : expected.shape[1]]
        assert np.array_equal(outputs, expected)

    def test_the_query_can_still_be_answered(self, key: SecretKey) -> None:
        evaluator = Evaluator(self.plan, self.weight, self.bias)
        reply = evaluator.evaluate(self._query(key), ZeroPool(key.public_key))
        Y = Cipher(self.plan, key).decrypt(reply, len(self.X))
        assert np.abs(Y - (self.X @ self.weight + self.bias)).max() <= self.plan.precision


def test_seal_in_webassembly_decrypts_the_known_answer() -> None:
    """Another build of SEAL, another language, and PROTOCOL.md: expansion, transforms, decryption, rounding."""
    home = Path(os.environ.get("SEALIGN_NODE", generate.HERE))
    node = shutil.which("node", path=f"{home / 'node_modules/.bin'}{os.pathsep}{os.environ['PATH']}")
    if node is None or not (home / "node_modules/node-seal").is_dir():
        pytest.skip("needs: npm install --prefix tests/vectors node@24 node-seal@7")
    script = [node, str(generate.HERE / "node_seal.mjs"), str(home)]
    run = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-500:]
    found = json.loads(run.stdout)
    assert found["outputs"] == stored("product")["outputs"]
    assert found["largest_query_error"] < 30
