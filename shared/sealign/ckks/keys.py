"""Key pairs: ephemeral unless the user asks for a file.

There are no evaluation keys, so a new key pair costs a millisecond and one upload of some kilobytes. A secret key
counts what its replies may have told a malicious silo, and is replaced when it is exhausted.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from tenseal import sealapi

from sealign.ckks.backend import backend
from sealign.ckks.lifetime import LeakageMeter
from sealign.ckks.messages import SeededCiphertext
from sealign.ckks.parameters import ParameterSet, parameter_set
from sealign.ckks.serialization import (
    load_secret_key,
    load_seeded,
    pack_words,
    save_secret_key,
    seeded_words,
)
from sealign.errors import InvalidInputError, StorageError
from sealign.files import write_atomically
from sealign.security import SecurityTable

_SCRYPT = {"length": 32, "n": 1 << 15, "r": 8, "p": 1}


@dataclass(frozen=True)
class PublicKey:
    """A public key in seeded form: an encryption of zero whose second polynomial a hash determines."""

    parameters: ParameterSet
    seeded: SeededCiphertext

    @cached_property
    def id(self) -> bytes:
        """SHA-256 of the content (32 bytes): the name of the key on the wire."""
        state = sha256(b"sealign public key v1\0" + self.parameters.name.encode() + b"\0")
        state.update(self.seeded.seed + self.seeded.words)
        return state.digest()

    @property
    def byte_count(self) -> int:
        """Bytes of the key as sent."""
        return len(self.seeded.seed) + len(self.seeded.words)

    def seal_key(self) -> sealapi.PublicKey:
        """The key as SEAL's object.

        Raises:
            InvalidInputError: the key is not in seeded form, or not of its parameter set.
        """
        return load_seeded(
            sealapi.PublicKey(),
            backend(self.parameters).context,
            self.parameters,
            self.seeded,
            "public key",
        )


class SecretKey:
    """The client's secret key for one parameter set, with the public key that goes with it."""

    def __init__(self, parameters: ParameterSet, seal_key: Any, leakage: LeakageMeter | None = None) -> None:
        self.parameters = parameters
        self.leakage = leakage or LeakageMeter.of(parameters)
        self._key = seal_key
        context = backend(parameters).context
        self._encryptor = sealapi.Encryptor(context, seal_key)
        self._decryptor = sealapi.Decryptor(context, seal_key)
        seed, words = seeded_words(self._encryptor.encrypt_zero_symmetric())
        self.public_key = PublicKey(parameters, SeededCiphertext(seed, pack_words(words, parameters.modulus_bits)))

    @classmethod
    def generate(cls, parameters: ParameterSet, table: SecurityTable = SecurityTable.CLASSICAL) -> SecretKey:
        """Return a fresh key pair from the operating system's randomness, with a lifetime by ``table``."""
        seal_key = sealapi.KeyGenerator(backend(parameters).context).secret_key()
        return cls(parameters, seal_key, LeakageMeter.of(parameters, table))

    def __repr__(self) -> str:
        return f"SecretKey({self.parameters.name}, public key {self.public_key.id.hex()[:12]})"

    @property
    def exhausted(self) -> bool:
        """Whether the key must be replaced: its lifetime is over, or a decryption failed."""
        return self.leakage.exhausted

    def spend(self, *, rows: int, labels: int, verified: bool = False, concealing: bool = False) -> bool:
        """Count one reply before it is asked for, as :meth:`LeakageMeter.spend`; False asks for a new key."""
        return self.leakage.spend(rows=rows, labels=labels, verified=verified, concealing=concealing)

    def encrypt(self, plaintext: sealapi.Plaintext) -> SeededCiphertext:
        """A seeded encryption of an encoded polynomial."""
        seed, words = seeded_words(self._encryptor.encrypt_symmetric(plaintext))
        return SeededCiphertext(seed, pack_words(words, self.parameters.modulus_bits))

    def decrypt(self, ciphertext: sealapi.Ciphertext) -> sealapi.Plaintext:
        """Return the polynomial in a ciphertext in NTT form, unrounded: for `Cipher`, which rounds it."""
        plaintext = sealapi.Plaintext()
        self._decryptor.decrypt(ciphertext, plaintext)
        return plaintext

    def save(self, path: Path, passphrase: str | None = None) -> None:
        """Store the key (file mode 0600), under a passphrase if one is given (scrypt, ChaCha20-Poly1305).

        The file holds what the key has told so far: save again after every :meth:`spend`.

        Raises:
            StorageError: the file could not be written; an earlier file is intact.
        """
        body = save_secret_key(self._key)
        document: dict[str, Any] = {"format": "sealign secret key v1", "parameters": self.parameters.name}
        document |= {"spent": self.leakage.spent, "replies": self.leakage.replies, "failed": self.leakage.failed}
        if passphrase is not None:
            salt, nonce = os.urandom(16), os.urandom(12)
            wrapping = Scrypt(salt=salt, **_SCRYPT).derive(passphrase.encode())
            body = ChaCha20Poly1305(wrapping).encrypt(nonce, body, self.parameters.name.encode())
            document |= {"salt": salt.hex(), "nonce": nonce.hex()}
        document |= {"key": base64.b64encode(body).decode(), "sha256": sha256(body).hexdigest()}
        write_atomically(path, json.dumps(document).encode(), mode=0o600)

    @classmethod
    def load(
        cls, path: Path, passphrase: str | None = None, table: SecurityTable = SecurityTable.CLASSICAL
    ) -> SecretKey:
        """Read a stored key, its lifetime as it was saved; its public key is made anew.

        Raises:
            StorageError: the file is missing, damaged, or readable by others.
            InvalidInputError: the passphrase is missing or wrong.
        """
        try:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise StorageError(f"secret key {path} can be read by others; run: chmod 600 {path}")
            document = json.loads(path.read_bytes())
            parameters = parameter_set(document["parameters"])
            body = base64.b64decode(document["key"], validate=True)
            leakage = _stored_leakage(document, parameters, table)
            salt, nonce = (bytes.fromhex(document.get(name, "")) for name in ("salt", "nonce"))
            if sha256(body).hexdigest() != document["sha256"]:
                raise StorageError(f"secret key {path} is damaged; delete it, and a new one is made")
        except OSError as error:
            raise StorageError(f"could not read secret key {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} is not a Sealign secret key, or is damaged") from error
        if salt:
            if passphrase is None:
                raise InvalidInputError(f"secret key {path} is under a passphrase; give it")
            try:
                wrapping = Scrypt(salt=salt, **_SCRYPT).derive(passphrase.encode())
                body = ChaCha20Poly1305(wrapping).decrypt(nonce, body, parameters.name.encode())
            except (InvalidTag, ValueError) as error:
                raise InvalidInputError(f"the passphrase does not open secret key {path}") from error
        return cls(parameters, load_secret_key(backend(parameters).context, body), leakage)


def _stored_leakage(document: dict[str, Any], parameters: ParameterSet, table: SecurityTable) -> LeakageMeter:
    """The meter in a key's file.

    Raises:
        KeyError, TypeError, ValueError: it is missing or makes no sense.
    """
    spent, replies, failed = (document[name] for name in ("spent", "replies", "failed"))
    if not (float(spent) >= 0 and int(replies) >= 0 and failed in (False, True)):
        raise ValueError("what the key has told makes no sense")
    return LeakageMeter(parameters.spare_bits(table), float(spent), int(replies), bool(failed))
