"""Linear classifier heads: training, import, calibration and out-of-distribution scores."""

from sealign.heads.calibration import (
    calibrate,
    expected_calibration_error,
    fit_temperature,
)
from sealign.heads.importing import import_head
from sealign.heads.linear import LinearHead
from sealign.heads.ood import (
    SCORES,
    auroc,
    energy,
    fpr_at_95,
    max_logit,
    max_softmax,
    softmax,
    threshold_at_95,
)
from sealign.heads.trained import TrainedHead
from sealign.heads.training import DEFAULT_PENALTIES, train_head

__all__ = [
    "DEFAULT_PENALTIES",
    "SCORES",
    "LinearHead",
    "TrainedHead",
    "auroc",
    "calibrate",
    "energy",
    "expected_calibration_error",
    "fit_temperature",
    "fpr_at_95",
    "import_head",
    "max_logit",
    "max_softmax",
    "softmax",
    "threshold_at_95",
    "train_head",
]
