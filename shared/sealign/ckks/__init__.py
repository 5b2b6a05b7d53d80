"""The encrypted product: an encrypted matrix times plaintext weights, plus a bias, under CKKS.

The client makes a `SecretKey` and a `Cipher`, the silo a `ZeroPool` for the client's public key and an
`Evaluator`, a `VocabularyEvaluator` for very many outputs, or a `StreamedProduct` for what is too large for one
message; a `PackingPlan` from the planner is
all that they share. Replies are always sanitised.
"""

from sealign.ckks.cipher import Cipher, checked_rows
from sealign.ckks.cost import Cost
from sealign.ckks.evaluator import Evaluator, WeightRows, product_shape
from sealign.ckks.keys import PublicKey, SecretKey
from sealign.ckks.lifetime import LeakageMeter, replies_per_key, reply_bits_told
from sealign.ckks.messages import (
    EncryptedMatrix,
    EncryptedProduct,
    ReplyCiphertext,
    SeededCiphertext,
    verify_digest,
)
from sealign.ckks.packing import Block
from sealign.ckks.parameters import (
    PARAMETER_SETS,
    ParameterSet,
    parameter_set,
    require_secure,
)
from sealign.ckks.plan import DEFAULT_PRECISION, ErrorBudget, PackingPlan, largest_outputs
from sealign.ckks.planner import ProductShape, candidates, plan_product
from sealign.ckks.residues import LARGEST_MODULUS_BITS, ResidueWeights, part_blocks, part_outputs, residue_bytes
from sealign.ckks.sanitiser import ZeroPool
from sealign.ckks.streaming import StreamedProduct
from sealign.ckks.verification import CheckRows, VerifiedRows, free_rows
from sealign.ckks.vocabulary import VocabularyEvaluator
from sealign.security import SecurityTable

__all__ = [
    "DEFAULT_PRECISION",
    "LARGEST_MODULUS_BITS",
    "PARAMETER_SETS",
    "Block",
    "CheckRows",
    "Cipher",
    "Cost",
    "EncryptedMatrix",
    "EncryptedProduct",
    "ErrorBudget",
    "Evaluator",
    "LeakageMeter",
    "PackingPlan",
    "ParameterSet",
    "ProductShape",
    "PublicKey",
    "ReplyCiphertext",
    "ResidueWeights",
    "SecretKey",
    "SecurityTable",
    "SeededCiphertext",
    "StreamedProduct",
    "VerifiedRows",
    "VocabularyEvaluator",
    "WeightRows",
    "ZeroPool",
    "candidates",
    "checked_rows",
    "free_rows",
    "largest_outputs",
    "parameter_set",
    "part_blocks",
    "part_outputs",
    "plan_product",
    "product_shape",
    "replies_per_key",
    "reply_bits_told",
    "require_secure",
    "residue_bytes",
    "verify_digest",
]
