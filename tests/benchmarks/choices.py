"""How well what is known beforehand says which map, and which public set, serves a task best.

    python -m tests.benchmarks.choices [--only dataset=trec ...]

Over cells of evaluation.toml (by default both directions between MiniLM and USE, the first seed):

- families of maps: rank correlation, over the candidates of one cell, of retrieval of held-out public texts and of
  the variance of them that is explained with the accuracy of the own head; and the accuracy of what each chooses.
- coverage: means of the accuracy lost by the verdict, and how often a measure puts two public sets of one task in the
  order of their accuracy, where that differs by more than a point.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment.coverage import Coverage
from sealign.alignment.families import refitted
from sealign.lab.evaluation import EvaluationSpec
from sealign.lab.evaluation.classifier import Classifier
from sealign.lab.evaluation.context import PairContext
from sealign.lab.evaluation.embedded import EmbeddedCorpus
from sealign.lab.evaluation.measures import accuracy
from sealign.lab.evaluation.methods import registry
from sealign.lab.evaluation.runner import Runner
from sealign.lab.evaluation.selection import Selection, Work
from sealign.lab.evaluation.texts import Corpus

HERE = Path(__file__).parent
PART = ("pair=minilm-use", "pair=use-minilm", "seed=0")
MEASURES: dict[str, Callable[[Coverage], float]] = {
    "variance retained": lambda coverage: coverage.retained,
    "distance of means": lambda coverage: -coverage.mean_distance,
    "told apart (AUROC)": lambda coverage: -coverage.auroc,
    "nearest cosine": lambda coverage: coverage.neighbour_cosines[1],
    "effective texts": lambda coverage: coverage.effective_texts,
}


@dataclass(frozen=True)
class Covered:
    """One side's coverage in one cell, and what the cell's methods reach."""

    work: Work
    side: str
    coverage: Coverage
    reached: dict[str, float]


def contexts(only: tuple[str, ...]) -> Iterator[tuple[Work, PairContext]]:
    """The cells' contexts, from the embeddings that the evaluation keeps."""
    spec = EvaluationSpec.load(HERE / "evaluation.toml")
    selection = Selection(spec, only)
    work = list(selection)
    corpus = Corpus(spec)
    embedded = EmbeddedCorpus(spec, corpus, HERE / "evaluation-output" / "embeddings")
    embedded.embed(work)
    runner = Runner(spec, corpus, embedded, selection.methods)
    for item in work:
        yield item, runner.context(item)


def reached(context: PairContext, classifier: Classifier, side: str = "client") -> float:
    """Accuracy on the test texts."""
    return accuracy(classifier, classifier.outputs(getattr(context.test, side)), context.test_labels)


def families(item: Work, context: PairContext) -> None:
    """Print how scores of candidates go with accuracy."""
    statistics, head = context.statistics, context.task.head
    total, held = (statistics.moments(*folds) for folds in (range(statistics.folds), range(1)))
    accuracies, explained = [], []
    for scored in context.candidates:
        weight, fitted = scored.candidate.weight, refitted(statistics, scored).weight
        explained.append(2 * np.sum(weight * held.xy) - np.sum((held.xx @ weight) * weight))
        composed = head.composed(fitted, total.mean_y - total.mean_x @ fitted)
        accuracies.append(reached(context, Classifier.of(composed)))
    found, score = np.array(accuracies), np.array([scored.score for scored in context.candidates])
    print(f"families {item.pair.name} {item.dataset} {item.public}: best {found.max():.3f}", end="")
    for name, values in (("retrieval", score), ("explained variance", np.array(explained))):
        best = int(values.argmax())
        chosen = context.candidates[best].candidate
        print(
            f"; {name}: rank correlation {rank_correlation(values, found):+.2f}, chooses {chosen.family} "
            f"{chosen.penalty:g}, {found[best]:.3f}",
            end="",
        )
    print(flush=True)


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's."""

    def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
        below, upto = (np.searchsorted(np.sort(values), values, side=side) for side in ("left", "right"))
        return (below + upto) / 2.0

    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def covered(item: Work, context: PairContext) -> Iterator[Covered]:
    """Coverage from both sides."""
    methods = registry()
    result = {
        name: reached(context, methods[name].fit(context), methods[name].side)
        for name in ("native", "ridge", "discriminant")
    }
    yield Covered(item, "client", Coverage.of(context.test.client, context.public.client), result)
    yield Covered(item, "silo", Coverage.of(context.train.silo, context.public.silo), result)


def print_coverage(found: list[Covered]) -> None:
    """Print losses by verdict, and how often measures are right."""
    for verdict in sorted({one.coverage.verdict for one in found}):
        group = [one for one in found if one.coverage.verdict == verdict]
        losses = {name: np.mean([one.reached["native"] - one.reached[name] for one in group]) for name in
                  ("ridge", "discriminant")}  # fmt: skip
        print(f"{verdict}: {len(group)} cases, accuracy lost by ridge {100 * losses['ridge']:.1f} points, by "
              f"discriminant {100 * losses['discriminant']:.1f}")  # fmt: skip
    for method in ("ridge", "discriminant"):
        for name, measure in MEASURES.items():
            right = compared = 0
            ordered = sorted(found, key=_task)
            for _, group_of_task in groupby(ordered, key=_task):
                for one, other in combinations(group_of_task, 2):
                    difference = one.reached[method] - other.reached[method]
                    if abs(difference) > 0.01:
                        compared += 1
                        right += (measure(one.coverage) - measure(other.coverage)) * difference > 0
            print(f"{method}: {name} puts {right} of {compared} pairs of public sets in order")


def _task(one: Covered) -> tuple[str, str, str]:
    return one.work.pair.name, one.work.dataset, one.side


def main(arguments: list[str]) -> None:
    """Measure all cells."""
    only = tuple(item for item in arguments if item != "--only")
    kinds = {item.partition("=")[0] for item in only}
    only += tuple(item for item in PART if item.partition("=")[0] not in kinds)
    found: list[Covered] = []
    for item, context in contexts(only):
        families(item, context)
        found += covered(item, context)
    print_coverage(found)


if __name__ == "__main__":
    main(sys.argv[1:])
