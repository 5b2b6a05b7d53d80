"""Sealign's client: use a silo's models on texts that never leave this machine unencrypted.

The names below are loaded when they are first used, so importing this package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealign.alignment import PublicSet as PublicSet
    from sealign.errors import AuthenticationError as AuthenticationError
    from sealign.errors import BudgetExhaustedError as BudgetExhaustedError
    from sealign.errors import DecryptionError as DecryptionError
    from sealign.errors import InvalidInputError as InvalidInputError
    from sealign.errors import MachineError as MachineError
    from sealign.errors import NoMapError as NoMapError
    from sealign.errors import NoPlanError as NoPlanError
    from sealign.errors import NotFoundError as NotFoundError
    from sealign.errors import NotPermittedError as NotPermittedError
    from sealign.errors import OverloadedError as OverloadedError
    from sealign.errors import PeerFailedError as PeerFailedError
    from sealign.errors import ReleaseRefusedError as ReleaseRefusedError
    from sealign.errors import SealignError as SealignError
    from sealign.errors import StorageError as StorageError
    from sealign.errors import UnavailableError as UnavailableError
    from sealign.errors import UntrustedCardError as UntrustedCardError
    from sealign.errors import VerificationError as VerificationError
    from sealign.errors import WrongAnswersError as WrongAnswersError
    from sealign.generation.sampling import Sampling as Sampling
    from sealign.protocol import MapCard as MapCard
    from sealign.protocol import Placement as Placement
    from sealign_client.blocking import Client as Client
    from sealign_client.client import AsyncClient as AsyncClient
    from sealign_client.local.recentring import Recentring as Recentring
    from sealign_client.options import AlignmentMode as AlignmentMode
    from sealign_client.options import AlignmentOptions as AlignmentOptions
    from sealign_client.pipelines import TextClassificationPipeline as TextClassificationPipeline
    from sealign_client.pipelines import pipeline as pipeline
    from sealign_client.results import CanaryReport as CanaryReport
    from sealign_client.results import Classification as Classification
    from sealign_client.results import Description as Description
    from sealign_client.results import Finish as Finish
    from sealign_client.results import Forecast as Forecast
    from sealign_client.results import GeneratedToken as GeneratedToken
    from sealign_client.results import GenerationDescription as GenerationDescription
    from sealign_client.results import Timing as Timing
    from sealign_client.results import Transfer as Transfer
    from sealign_client.settings import ClientSettings as ClientSettings
    from sealign_client.settings import client_settings as client_settings
    from sealign_client.version import __version__ as __version__

_HOMES = {
    "sealign.alignment": ("PublicSet",),
    "sealign.errors": (
        "AuthenticationError", "BudgetExhaustedError", "DecryptionError", "InvalidInputError", "MachineError",
        "NoMapError", "NoPlanError", "NotFoundError", "NotPermittedError", "OverloadedError", "PeerFailedError",
        "ReleaseRefusedError", "SealignError", "StorageError", "UnavailableError", "UntrustedCardError",
        "VerificationError", "WrongAnswersError",
    ),
    "sealign.generation.sampling": ("Sampling",),
    "sealign.protocol": ("MapCard", "Placement"),
    "sealign_client.blocking": ("Client",),
    "sealign_client.client": ("AsyncClient",),
    "sealign_client.local.recentring": ("Recentring",),
    "sealign_client.options": ("AlignmentMode", "AlignmentOptions"),
    "sealign_client.pipelines": ("TextClassificationPipeline", "pipeline"),
    "sealign_client.results": (
        "CanaryReport", "Classification", "Description", "Finish", "Forecast", "GeneratedToken",
        "GenerationDescription", "Timing", "Transfer",
    ),
    "sealign_client.settings": ("ClientSettings", "client_settings"),
    "sealign_client.version": ("__version__",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
