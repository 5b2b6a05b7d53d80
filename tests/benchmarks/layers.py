"""What the layers of a client's encoder are worth behind a map, and which of them can be chosen without labels.

    python -m tests.benchmarks.layers [CLIENT [LAYERS ...]]
    python -m tests.benchmarks.layers smollm2-mean last all 16 8

CLIENT is an encoder of evaluation.toml, by default minilm, against a silo with USE: three data sets, two public sets,
and texts as few as for SmolLM2-135M there. A line per choice of layers says the accuracy of the default head behind the
map, in percent and by public set, and what is known without labels of test texts: the map's held-out explained
variance, which `sealign align` prints, and the accuracy that the silo's card promises. The last lines say how these two
go with accuracy, and what they would choose. Embeddings are kept with those of the evaluation, or in $SEALIGN_CACHE.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sealign.lab.evaluation import EvaluationSpec
from sealign.lab.evaluation.context import PairContext
from sealign.lab.evaluation.embedded import EmbeddedCorpus
from sealign.lab.evaluation.fitted_head import names
from sealign.lab.evaluation.runner import Runner
from sealign.lab.evaluation.selection import Selection, Work
from sealign.lab.evaluation.task import SiloTask
from sealign.lab.evaluation.texts import Corpus
from tests.benchmarks.choices import rank_correlation, reached

HERE = Path(__file__).parent
DATASETS = ("trec", "subj", "clinc150")
PUBLIC = ("general", "wikipedia")
LIMITS = "smollm2-mean-use"
"""The pair of evaluation.toml whose numbers of texts hold for every client."""
LAST = "last"
LAYERS = (LAST, "all", "5", "4", "3", "5,6", "4,5,6")


@dataclass(frozen=True)
class Cell:
    """One choice of layers in one cell; figures in percent, but for the explained variance."""

    layers: str
    public: str
    accuracy: float
    promised: float
    explained: float


def specified(client: str, choices: Sequence[str]) -> EvaluationSpec:
    """The evaluation with one pair for each choice of layers."""
    spec = EvaluationSpec.load(HERE / "evaluation.toml")
    limits = next(pair for pair in spec.pairs if pair.name == LIMITS)
    encoders = {
        choice.replace(",", "+"): spec.encoders[client] + ("" if choice == LAST else f"&layers={choice}")
        for choice in choices
    }
    return spec.model_copy(
        update={
            "encoders": {**encoders, limits.silo: spec.encoders[limits.silo]},
            "pairs": tuple(limits.model_copy(update={"client": name}) for name in encoders),
            "datasets": {name: spec.datasets[name].model_copy(update={"outliers": None}) for name in DATASETS},
            "public": {name: spec.public[name] for name in PUBLIC},
        }
    )


def measured(spec: EvaluationSpec) -> Iterator[Cell]:
    """Every choice in every cell of the first seed."""
    selection = Selection(spec, (f"seed={spec.seeds[0]}", "part=classification"))
    corpus = Corpus(spec)
    directory = Path(os.environ.get("SEALIGN_CACHE", HERE / "evaluation-output" / "embeddings"))
    embedded = EmbeddedCorpus(spec, corpus, directory)
    embedded.embed(list(selection))
    runner = Runner(spec, corpus, embedded, selection.methods)
    tasks: dict[str, SiloTask] = {}
    for work in selection:
        context = runner.context(work)
        # What the silo measures of a task is the same for every client.
        yield _cell(work, replace(context, task=tasks.setdefault(work.dataset, context.task)))


def _cell(work: Work, context: PairContext) -> Cell:
    classifier = names(context)
    promise = float("nan") if classifier.promise is None else classifier.promise.accuracy
    return Cell(
        work.pair.client.replace("+", ","),
        work.public,
        100 * reached(context, classifier),
        100 * promise,
        context.named.ridge.quality.explained_variance,
    )


def main() -> None:
    """Print a line per choice, and how well labels can be done without."""
    client, *given = sys.argv[1:] or ["minilm"]
    choices = given or list(LAYERS)
    cells = list(measured(specified(client, choices)))
    print(f"{'layers':>12} {'general':>8} {'wikipedia':>9} {'mean':>6} {'explained':>9} {'promised':>8}")
    lines = {}
    for choice in choices:
        found = [cell for cell in cells if cell.layers == choice]
        by_set = [np.mean([cell.accuracy for cell in found if cell.public == public]) for public in PUBLIC]
        explained, promised = (np.mean([getattr(cell, name) for cell in found]) for name in ("explained", "promised"))
        lines[choice] = np.array([np.mean(by_set), explained, promised])
        print(
            f"{choice:>12} {by_set[0]:8.1f} {by_set[1]:9.1f} {lines[choice][0]:6.1f} {explained:9.3f} {promised:8.1f}"
        )
    accuracy, *scores = np.array(list(lines.values())).T
    for name, score in zip(("explained variance", "promised accuracy"), scores, strict=True):
        best = int(score.argmax())
        print(
            f"{name}: rank correlation {rank_correlation(score, accuracy):+.2f}; chooses {choices[best]}, "
            f"{accuracy[best]:.1f} % ({accuracy.max():.1f} at best)"
        )


if __name__ == "__main__":
    main()
