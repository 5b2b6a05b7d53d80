"""Classification and generation through CKKS ciphertexts and an affine map between two embedding spaces: the library.

It opens no sockets and starts no processes; ``sealign_client`` and ``sealign_server`` stand on it.
"""

from importlib.metadata import version

__version__ = version("sealign")
__all__ = ["__version__"]
