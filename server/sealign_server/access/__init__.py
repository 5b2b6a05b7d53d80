"""Who is calling, what each may do, what each has used, and how much is under way."""

from sealign_server.access.accounting import RowAccounts
from sealign_server.access.admission import Bench, Share
from sealign_server.access.auditing import AuditLayer
from sealign_server.access.identities import ANONYMOUS, Identities, identity_of
from sealign_server.access.permissions import Permissions

__all__ = ["ANONYMOUS", "AuditLayer", "Bench", "Identities", "Permissions", "RowAccounts", "Share", "identity_of"]
