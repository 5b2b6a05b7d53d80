"""Measures what alignment costs in accuracy, and which method wins how much of it back.

Both encoders run on one machine here, with labelled data at hand: for a silo's operator or a researcher. Needs the
extra ``evaluate``.
"""

from sealign.lab.results import Report
from sealign.lab.run import run_evaluation
from sealign.lab.spec import EvaluationSpec
from sealign.lab.writing import write_report

__all__ = ["EvaluationSpec", "Report", "run_evaluation", "write_report"]
