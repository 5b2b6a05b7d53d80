"""What a pair of causal models is measured with."""

from __future__ import annotations

from dataclasses import dataclass

from sealign.encoders.causal import CausalModel
from sealign.lab.evaluation.spec import GenerationSpec
from sealign.lab.evaluation.texts import Texts


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair's models and texts; states are not read yet."""

    spec: GenerationSpec
    client: CausalModel
    silo: CausalModel
    public: Texts
    test: Texts
