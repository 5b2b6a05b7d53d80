"""Texts that stand for private ones under differential privacy: public and written candidates, chosen by noisy votes.

Private evolution: Xie et al., "Differentially Private Synthetic Data via Foundation Model APIs 2: Text" (Aug-PE, arXiv
2403.01749). Noise and accounting are OpenDP's; the extra ``private`` installs it.
"""

from sealign.synthetic.evolution import Candidates, Evolution, Steps, Writer
from sealign.synthetic.privacy import PrivacyLoss, VotingRun, noise_scale, noisy, privacy_loss, require_opendp

__all__ = [
    "Candidates",
    "Evolution",
    "PrivacyLoss",
    "Steps",
    "VotingRun",
    "Writer",
    "noise_scale",
    "noisy",
    "privacy_loss",
    "require_opendp",
]
