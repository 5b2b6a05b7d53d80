"""``python -m sealign_client``: the same as ``sealign``."""

from sealign_client.cli import main

main()
