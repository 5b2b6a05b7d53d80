"""The version of this software."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sealign")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "unknown"
