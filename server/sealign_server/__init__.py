"""A silo: serves classifiers and language-model heads to clients whose texts, embeddings and labels it never sees."""

from importlib.metadata import version

__version__ = version("sealign")

__all__ = ["__version__"]
