"""Facts that must be exact across processes and survive them: releases, maps made, rows used, identities.

SQLite by default (write-ahead log, each commit synced), PostgreSQL if there is a URL. What is about to happen is
recorded before it happens, so that a crash can only be in the silo's favour.
"""

from sealign_server.ledger.database import Ledger
from sealign_server.ledger.identities import (
    IdentityFacts,
    IdentityRegister,
    Newcomer,
    Snapshot,
    new_token,
    token_digest,
)
from sealign_server.ledger.makings import MAP, REGISTRATION, Makings
from sealign_server.ledger.private_votes import PrivateVotes
from sealign_server.ledger.releases import Release, Releases
from sealign_server.ledger.usage import Budget, Spent, Usage, UsageKey, this_hour

__all__ = [
    "MAP",
    "REGISTRATION",
    "Budget",
    "IdentityFacts",
    "IdentityRegister",
    "Ledger",
    "Makings",
    "Newcomer",
    "PrivateVotes",
    "Release",
    "Releases",
    "Snapshot",
    "Spent",
    "Usage",
    "UsageKey",
    "new_token",
    "this_hour",
    "token_digest",
]
