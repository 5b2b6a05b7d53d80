"""Key pairs and their files."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealign.ckks import Cipher, Evaluator, PublicKey, SecretKey, SeededCiphertext, ZeroPool, parameter_set
from sealign.ckks.backend import backend
from sealign.ckks.serialization import ciphertext_from_coefficients, save_secret_key
from sealign.errors import InvalidInputError, SealignError, StorageError
from tests.unit.ckks.parties import Parties, head, unit_rows

PARAMETERS = parameter_set("ckks-2048-36")


@pytest.fixture
def key() -> SecretKey:
    return SecretKey.generate(PARAMETERS)


def test_public_keys_differ_and_are_named_by_content(key: SecretKey) -> None:
    other = SecretKey.generate(PARAMETERS)
    assert key.public_key.id != other.public_key.id
    assert len(key.public_key.id) == 32
    public = key.public_key
    assert PublicKey(PARAMETERS, SeededCiphertext(public.seeded.seed, public.seeded.words)).id == public.id
    assert PublicKey(parameter_set("ckks-4096-36"), public.seeded).id != public.id
    assert public.byte_count == 64 + 2048 * 36 // 8


@pytest.mark.parametrize("passphrase", [None, "correct horse", ""])
def test_reloaded_key_decrypts_what_was_encrypted_before(tmp_path: Path, passphrase: str | None) -> None:
    generator = np.random.default_rng(1)
    parties = Parties.meet(*head(generator, 60, 3))
    X = unit_rows(generator, 1, 60)
    reply = parties.evaluator.evaluate(parties.cipher.encrypt(X), parties.zeros)
    path = tmp_path / "key.json"
    parties.cipher.key.save(path, passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    reloaded = SecretKey.load(path, passphrase)
    assert save_secret_key(reloaded._key) == save_secret_key(parties.cipher.key._key)

    # The public key is made anew, so its id differs: the old one goes with the old reply.
    assert reloaded.public_key.id != parties.cipher.key.public_key.id
    reloaded.public_key = parties.cipher.key.public_key
    decrypted = Cipher(parties.plan, reloaded).decrypt(reply, 1)
    assert np.abs(decrypted - parties.clear(X)).max() <= parties.plan.precision

    fresh = Cipher(parties.plan, SecretKey.load(path, passphrase))
    evaluator = Evaluator(parties.plan, parties.weight, parties.bias)
    reply = evaluator.evaluate(fresh.encrypt(X), ZeroPool(fresh.key.public_key))
    assert np.abs(fresh.decrypt(reply, 1) - parties.clear(X)).max() <= parties.plan.precision


def test_passphrase_hides_the_key(tmp_path: Path, key: SecretKey) -> None:
    key.save(tmp_path / "key", "right")
    stored = base64.b64decode(json.loads((tmp_path / "key").read_bytes())["key"])
    assert save_secret_key(key._key)[100:164] not in stored


@pytest.mark.parametrize(("passphrase", "message"), [("wrong", "does not open"), (None, "give it"), ("", "not open")])
def test_wrong_or_missing_passphrase(tmp_path: Path, key: SecretKey, passphrase: str | None, message: str) -> None:
    key.save(tmp_path / "key", "right")
    with pytest.raises(InvalidInputError, match=message):
        SecretKey.load(tmp_path / "key", passphrase)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_file_that_others_can_read_is_refused(tmp_path: Path, key: SecretKey, mode: int) -> None:
    key.save(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(StorageError, match="chmod 600"):
        SecretKey.load(tmp_path / "key")


def _edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return edit


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "not JSON": lambda _: b"\x93\x00" * 50,
    "a list": lambda _: b"[1, 2]",
    "no key": _edited(lambda document: document.pop("key")),
    "no parameters": _edited(lambda document: document.pop("parameters")),
    "unknown parameters": _edited(lambda document: document.update(parameters="ckks-512-9")),
    "other parameters": _edited(lambda document: document.update(parameters="ckks-4096-36")),
    "not base64": _edited(lambda document: document.update(key="?" + document["key"])),
    "short key": _edited(lambda document: document.update(key=document["key"][:400])),
    "no record of what it told": _edited(lambda document: document.pop("spent")),
    "a negative record": _edited(lambda document: document.update(spent="-1")),
    "bad salt": _edited(lambda document: document.update(salt="zz")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("passphrase", [None, "right"])
def test_damaged_file_is_one_clear_error(
    tmp_path: Path, key: SecretKey, damage: Callable[[bytes], bytes], passphrase: str | None
) -> None:
    path = tmp_path / "key"
    key.save(path, passphrase)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SealignError) as raised:
        SecretKey.load(path, passphrase)
    assert isinstance(raised.value, SealignError)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        SecretKey.load(tmp_path / "absent")


def test_a_reloaded_key_remembers_what_it_has_told(tmp_path: Path, key: SecretKey) -> None:
    assert key.spend(rows=3, labels=4)
    key.save(tmp_path / "key")
    again = SecretKey.load(tmp_path / "key")
    assert (again.leakage.spent, again.leakage.replies, again.exhausted) == (6.0, 1, False)
    key.leakage.fail()
    key.save(tmp_path / "key")
    assert SecretKey.load(tmp_path / "key").exhausted


def test_failed_save_keeps_the_old_key(tmp_path: Path, key: SecretKey, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    key.save(path)
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        SecretKey.generate(PARAMETERS).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_representation_holds_no_secret(key: SecretKey) -> None:
    shown = repr(key) + str(key) + f"{key}"
    secret = save_secret_key(key._key)
    assert shown.count("ckks-2048-36") == 3
    for encoding in (secret.hex(), base64.b64encode(secret).decode()):
        assert not any(encoding[i : i + 16] in shown for i in range(200, len(encoding), 16))


def test_key_is_ternary(key: SecretKey) -> None:
    """Multiplying one in coefficient form by the secret shows it: every coefficient is -1, 0 or 1."""
    words = np.zeros((2, 2048), dtype=np.uint64)
    words[1, 0] = 1

    working = backend(PARAMETERS)
    ciphertext = ciphertext_from_coefficients(working.context, words)
    working.evaluator.transform_to_ntt_inplace(ciphertext)
    secret = np.rint(working.decode(key.decrypt(ciphertext)))
    assert set(secret) == {-1.0, 0.0, 1.0}
