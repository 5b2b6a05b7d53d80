"""Who is calling, what each may do, what each has used and done, and how much is under way."""

from sealign_server.access.accounting import Allowance, RowAccounts
from sealign_server.access.admission import Bench, Share
from sealign_server.access.auditing import AuditLayer
from sealign_server.access.certificate_names import ANONYMOUS, identity_of
from sealign_server.access.identities import Identities
from sealign_server.access.policies import Policies
from sealign_server.access.policy import POLICY_FILE, AlignMode, Policy, Tier
from sealign_server.access.proxies import TrustedProxies
from sealign_server.access.rates import Buckets, Rates, shared_buckets

__all__ = [
    "ANONYMOUS",
    "POLICY_FILE",
    "AlignMode",
    "Allowance",
    "AuditLayer",
    "Bench",
    "Buckets",
    "Identities",
    "Policies",
    "Policy",
    "Rates",
    "RowAccounts",
    "Share",
    "Tier",
    "TrustedProxies",
    "identity_of",
    "shared_buckets",
]
