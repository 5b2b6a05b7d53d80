"""Measures what alignment costs in accuracy, and which method wins how much of it back.

Both encoders run on one machine here, with labelled data at hand: for a silo's operator or a researcher. Needs the
extra ``evaluate``.
"""

from sealign.lab.evaluation.results import Report
from sealign.lab.evaluation.run import run_evaluation
from sealign.lab.evaluation.spec import EvaluationSpec
from sealign.lab.evaluation.writing import write_report

__all__ = ["EvaluationSpec", "Report", "run_evaluation", "write_report"]
