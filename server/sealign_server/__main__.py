"""``python -m sealign_server``."""

from sealign_server.cli import main

main()
