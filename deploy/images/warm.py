"""Load what an image's programs load, so that Python writes its bytecode: ``python warm.py PACKAGE…`` in a build."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import walk_packages
from tempfile import TemporaryDirectory

_ARCHITECTURES = ("bert", "llama")


def main() -> None:
    """Import every module of the packages; load and run small models if torch is there."""
    for name in sys.argv[1:]:
        package = import_module(name)
        for module in walk_packages(package.__path__, f"{name}."):
            with suppress(ImportError):  # a module for an extra that the image does not have
                if not module.name.endswith(".__main__"):
                    import_module(module.name)
    if find_spec("torch") is not None:
        _run_models()


def _run_models() -> None:
    from sealign.encoders import EncoderSettings, load_encoder
    from tests.support.tiny_models import model_folder

    for kind in _ARCHITECTURES:
        with TemporaryDirectory() as folder:
            model_folder(Path(folder), kind)
            load_encoder(EncoderSettings.parse(f"transformers:{folder}")).encode(["a text"])


if __name__ == "__main__":
    main()
