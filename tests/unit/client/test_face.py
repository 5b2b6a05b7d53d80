"""The package's face: its names, their help, and how fast it is there."""

from __future__ import annotations

import subprocess
import sys

import sealign_client
from sealign_client import AsyncClient, Client

NAMES = """
AlignmentMode AlignmentOptions AsyncClient AuthenticationError BudgetExhaustedError CanaryReport Classification
Client ClientSettings DecryptionError Description Finish Forecast GeneratedToken GenerationDescription InvalidInputError
MachineError MapCard NoMapError NoPlanError NotFoundError NotPermittedError OverloadedError PeerFailedError Placement
PublicSet Recentring ReleaseRefusedError Sampling SealignError StorageError TextClassificationPipeline Timing Transfer
UnavailableError UntrustedCardError VerificationError WrongAnswersError __version__ client_settings pipeline
"""


def test_the_exported_names_are_these() -> None:
    assert sorted(sealign_client.__all__) == sorted(NAMES.split())
    assert dir(sealign_client) == sealign_client.__all__
    for name in sealign_client.__all__:
        assert getattr(sealign_client, name) is not None


def test_both_clients_have_the_same_methods_and_help() -> None:
    public = {name for name in vars(Client) if not name.startswith("_")}
    assert public <= {name for name in vars(AsyncClient) if not name.startswith("_")}
    for name in public - {"close"}:
        assert vars(Client)[name].__doc__, name
    assert "NoMapError" in (Client.classify.__doc__ or "")
    assert "numpy array" in (Client.classify.__doc__ or "")


def test_importing_loads_nothing_heavy() -> None:
    program = (
        "import sys, sealign_client; from sealign_client import AsyncClient, Client;"
        "first = {'numpy', 'tenseal', 'pydantic', 'cryptography'} & set(sys.modules); assert not first, first;"
        "Client(silo='silo.example:7443', encoder='use').close();"
        "heavy = {'torch', 'transformers', 'sklearn', 'grpc', 'grpc_reflection', 'tokenizers', 'rich', 'typer'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_help_of_the_command_line_loads_no_settings() -> None:
    program = (
        "import sys; sys.argv = ['sealign', '--help']; from sealign_client.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'numpy', 'grpc', 'pydantic'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    for command in ("align", "classify", "generate", "adapt", "coverage", "daemon", "tasks", "maps", "keys"):
        assert f"\n  {command} " in ran.stdout
