"""One connection to a silo: typed calls on domain values. gRPC is known here and in the daemon only."""

from sealign_client.transport.alignment import AlignmentCalls
from sealign_client.transport.classification import ClassificationCalls, Listing
from sealign_client.transport.connection import SiloConnection, credentials_of
from sealign_client.transport.generation import GenerationCalls
from sealign_client.transport.queries import Query, Reply

__all__ = [
    "AlignmentCalls",
    "ClassificationCalls",
    "GenerationCalls",
    "Listing",
    "Query",
    "Reply",
    "SiloConnection",
    "credentials_of",
]
