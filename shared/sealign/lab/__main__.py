"""``python -m sealign.lab`` is ``sealign-lab``."""

from sealign.lab.cli import main

main()
