"""An encrypted alignment under way, in files beside the map that it will make: another process can resume it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import numpy as np
from numpy.typing import NDArray

from sealign.ckks import ParameterSet, PublicKey, SecretKey, SeededCiphertext, parameter_set
from sealign.errors import SealignError, StorageError
from sealign.files import load_arrays, save_arrays
from sealign_client.local.directory import private

_SESSION = "session.safetensors"
_KEY = "alignment.key"
