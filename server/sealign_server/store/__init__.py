"""What a silo keeps in its directory. The only package that knows paths.

silo.json                     format, name, encoder; it makes the silo
silo.toml                     settings for serving (optional)
policy.toml                   who may do what (optional)
serving.pid                   the process that serves, which holds the file
ledger.sqlite                 what is counted (see `sealign_server.ledger`)
space/                        the silo's embedding space (see `SpaceStore`)
tasks/<task>/                 classification tasks (see `TaskStore`)
generation/<task>/            generation tasks, each with a space/ of its own (see `GenerationStore`)
audit/                        the audit trail (see `AuditTrail`)
signing/                      the key that signs cards and the audit trail (see `SigningKeys`)
embedded/                     embeddings of training texts, so that they are computed once

Every file is replaced as a whole or not at all. Directories are for their owner alone (mode 0700), and so are files
that are private or counted (0600). What is wrong with a file is a `StorageError`, which never leaves this machine.
"""

from sealign_server.store.audit import AuditTrail
from sealign_server.store.audit_records import AuditRecord, Verified, audit_records, verify_audit
from sealign_server.store.files import remove_leftovers
from sealign_server.store.fitted import FittedHeads
from sealign_server.store.generation import GenerationDocument, GenerationStore
from sealign_server.store.plans import plan_from_document, plan_to_document
from sealign_server.store.signing import SigningKeys
from sealign_server.store.silo import SiloDocument, SiloStore
from sealign_server.store.space import SpaceStore
from sealign_server.store.space_records import OPERATOR, MapRecord, PublicRows
from sealign_server.store.tasks import SharedExamples, StoredTask, Synthetic, TaskStore
from sealign_server.store.undelivered import SESSION_BYTES, Undelivered, UndeliveredStore

__all__ = [
    "OPERATOR",
    "SESSION_BYTES",
    "AuditRecord",
    "AuditTrail",
    "FittedHeads",
    "GenerationDocument",
    "GenerationStore",
    "MapRecord",
    "PublicRows",
    "SharedExamples",
    "SigningKeys",
    "SiloDocument",
    "SiloStore",
    "SpaceStore",
    "StoredTask",
    "Synthetic",
    "TaskStore",
    "Undelivered",
    "UndeliveredStore",
    "Verified",
    "audit_records",
    "plan_from_document",
    "plan_to_document",
    "remove_leftovers",
    "verify_audit",
]
