"""Linear classifier heads: training, import, calibration and out-of-distribution scores."""

from sealign.heads.calibration import (
    calibrate,
    expected_calibration_error,
    fit_temperature,
)
from sealign.heads.discriminant import ClassStatistics, Outliers, discriminant_head
from sealign.heads.exporting import export_head, export_sklearn
from sealign.heads.fitness import require_fitting
from sealign.heads.importing import import_head
from sealign.heads.linear import LinearHead, class_indices
from sealign.heads.mapped import CalibratedHead, head_behind
from sealign.heads.margins import label_agreement, label_precision
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
from sealign.heads.profile import TaskProfile
from sealign.heads.profiling import MEASURING_STEPS, measure_task
from sealign.heads.served import OutputLayout, ServedHead
from sealign.heads.trained import TrainedHead
from sealign.heads.training import DEFAULT_PENALTIES, retrain_head, stratified_hold_out, train_head

__all__ = [
    "DEFAULT_PENALTIES",
    "MEASURING_STEPS",
    "SCORES",
    "CalibratedHead",
    "ClassStatistics",
    "LinearHead",
    "Outliers",
    "OutputLayout",
    "ServedHead",
    "TaskProfile",
    "TrainedHead",
    "auroc",
    "calibrate",
    "class_indices",
    "discriminant_head",
    "energy",
    "expected_calibration_error",
    "export_head",
    "export_sklearn",
    "fit_temperature",
    "fpr_at_95",
    "head_behind",
    "import_head",
    "label_agreement",
    "label_precision",
    "max_logit",
    "max_softmax",
    "measure_task",
    "require_fitting",
    "retrain_head",
    "softmax",
    "stratified_hold_out",
    "threshold_at_95",
    "train_head",
]
