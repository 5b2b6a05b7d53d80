"""Classification and generation through CKKS ciphertexts and an affine map between two embedding spaces: the library.

It opens no sockets and starts no processes; ``sealign_client`` and ``sealign_server`` stand on it.
"""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """Return the version, which is looked up when it is asked for: that takes longer than the rest of this module."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("sealign")
