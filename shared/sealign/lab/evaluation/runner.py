"""Measures one cell of an evaluation: a pair, a dataset, a public set and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np

from sealign.defaults import FEWEST_OUTLIERS
from sealign.errors import InvalidInputError
from sealign.lab.evaluation.classifier import Classifier
from sealign.lab.evaluation.code import code_digest
from sealign.lab.evaluation.context import PairContext, Sides
from sealign.lab.evaluation.embedded import EmbeddedCorpus
from sealign.lab.evaluation.measures import accuracy, kept, measure, measure_encrypted
from sealign.lab.evaluation.methods import Method
from sealign.lab.evaluation.results import Cell, MethodResult
from sealign.lab.evaluation.selection import Work
from sealign.lab.evaluation.spec import EvaluationSpec
from sealign.lab.evaluation.synthetic import SyntheticTexts
from sealign.lab.evaluation.task import SiloTask
from sealign.lab.evaluation.texts import Corpus, Texts, digest

_MEASURING = ("alignment", "heads", "ckks", "lab/evaluation", "synthetic")
"""Packages whose code decides results."""

_OTHER = frozenset({
    "code", "coverage", "coverage_report", "figures", "generation_plots", "generation_results", "generation_tables",
    "html", "markdown", "plots", "promise_table", "results", "run", "selection", "spec", "summary", "table", "tables",
    "writing",
})  # fmt: skip
"""Modules of these which do not."""


class Runner:
    """Measures cells; heads that several cells share are trained once."""

    def __init__(
        self,
        spec: EvaluationSpec,
        corpus: Corpus,
        embedded: EmbeddedCorpus,
        methods: Sequence[Method],
        synthetic: SyntheticTexts | None = None,
    ) -> None:
        self._spec = spec
        self._corpus = corpus
        self._embedded = embedded
        self._methods = methods
        self._synthetic = synthetic
        self._code = code_digest(_MEASURING, _OTHER)
        self._task = lru_cache(maxsize=4)(self._silo_task)
        self._references: dict[tuple[str, str, str, int], Classifier] = {}

    def digest(self, item: Work) -> str:
        """Of all that decides a cell's result."""
        dataset = self._corpus.dataset(item.pair, item.dataset)
        names = [self._embedded.encoders[name].fingerprint for name in (item.pair.client, item.pair.silo)]
        settings = [
            item.pair.name, item.dataset, item.public, str(item.seed), self._code, *names,
            *(method.name for method in self._methods),
            *map(str, (self._spec.few_shot, self._spec.sizes, self._spec.curve)),
            *map(str, (self._spec.encrypted, self._spec.encrypted_examples)),
        ]  # fmt: skip
        return digest(
            settings, dataset.train.texts, dataset.train.labels, dataset.test.texts, dataset.test.labels,
            dataset.unseen.texts, dataset.unseen.labels,
            dataset.outliers, dataset.exposure, (dataset.description,), dataset.names,
            self._corpus.public(item.pair, item.public, item.seed), self._synthesized(item),
        )  # fmt: skip

    def cell(self, item: Work) -> Cell:
        """Fit and measure every method."""
        context = self.context(item)
        results: dict[str, MethodResult] = {}
        left_out: dict[str, str] = {}
        fitted: dict[str, Classifier] = {}
        for method in self._methods:
            try:
                fitted[method.name] = self._fitted(method, context, item)
            except InvalidInputError as error:
                left_out[method.name] = str(error)
                continue
            results[method.name] = self._measured(method, fitted[method.name], context)
        self._add_encrypted(context, fitted, results)
        quality = context.ridge.quality
        return Cell(
            pair=item.pair.name,
            dataset=item.dataset,
            public=item.public,
            seed=item.seed,
            n=len(context.public),
            train=len(context.train),
            test=len(context.test),
            outliers=len(context.outliers),
            cka=quality.linear_cka or 0.0,
            explained_variance=quality.explained_variance,
            methods=results,
            left_out=left_out,
            unseen=len(context.unseen),
        )

    def context(self, item: Work) -> PairContext:
        """What methods fit on."""
        pair, dataset = item.pair, self._corpus.dataset(item.pair, item.dataset)
        train = self._embedded.sides(pair, dataset.train.texts)
        return PairContext(
            public=self._embedded.sides(pair, self._corpus.public(pair, item.public, item.seed)),
            train=train,
            train_labels=dataset.train.labels,
            unseen=self._embedded.sides(pair, dataset.unseen.texts),
            unseen_labels=dataset.unseen.labels,
            test=self._embedded.sides(pair, dataset.test.texts),
            test_labels=dataset.test.labels,
            few=self._embedded.sides(pair, self._corpus.few_shot(pair, item.dataset, item.seed)),
            exposure=self._embedded.sides(pair, dataset.exposure),
            outliers=self._embedded.sides(pair, dataset.outliers),
            description=self._embedded.sides(pair, (dataset.description,) if dataset.description else ()),
            task=self._task(pair.name, item.dataset, item.seed),
            seed=item.seed,
            names=self._embedded.sides(pair, dataset.names),
            synthetic=self._synthetic_sides(item),
        )

    def _synthesized(self, item: Work) -> Texts:
        """The synthetic texts of a cell that are not among its public ones, as they would join those."""
        if self._synthetic is None:
            return ()
        silo = item.pair.silo
        fingerprint = self._embedded.encoders[silo].fingerprint
        dataset = self._corpus.dataset(item.pair, item.dataset)
        texts = self._synthetic.made(dataset, fingerprint, item.seed, partial(self._embedded.add, silo))
        public = set(self._corpus.public(item.pair, item.public, item.seed))
        return tuple(text for text in texts if text not in public)

    def _synthetic_sides(self, item: Work) -> Sides | None:
        if self._synthetic is None:
            return None
        texts = self._synthesized(item)
        return Sides(*(self._embedded.add(side, texts) for side in (item.pair.client, item.pair.silo)))

    def _silo_task(self, pair: str, dataset: str, seed: int) -> SiloTask:
        chosen = next(known for known in self._spec.pairs if known.name == pair)
        texts = self._corpus.dataset(chosen, dataset)
        rows = self._embedded.sides(chosen, texts.train.texts).silo
        outliers = self._embedded.sides(chosen, texts.exposure).silo
        return SiloTask(rows, texts.train.labels, seed, outliers if len(outliers) >= FEWEST_OUTLIERS else None)

    def _fitted(self, method: Method, context: PairContext, item: Work) -> Classifier:
        if method.kind != "reference":
            return method.fit(context)
        key = (method.name, item.pair.name, item.dataset, item.seed)  # whatever the public set
        if key not in self._references:
            self._references = {known: kept for known, kept in self._references.items() if known[1:] == key[1:]}
            self._references[key] = method.fit(context)
        return self._references[key]

    def _measured(self, method: Method, classifier: Classifier, context: PairContext) -> MethodResult:
        parts = context.test, context.outliers, context.unseen
        test, outliers, unseen = (getattr(rows, method.side) for rows in parts)
        outside = classifier.outputs(outliers) if len(outliers) else np.empty((0, len(classifier.bias)))
        result = measure(classifier, classifier.outputs(test), context.test_labels, outside)
        if classifier.promise is not None and len(unseen):
            outputs = classifier.outputs(unseen)
            right = accuracy(classifier, outputs, context.unseen_labels)
            result = result.model_copy(update={"unseen": right, "unseen_kept": kept(classifier, outputs)})
        if method.name not in self._spec.curve:
            return result
        curve = {len(context.public): result.accuracy}
        for size in self._spec.sizes:
            if size < len(context.public):
                smaller = method.fit(context.with_first(size))
                curve[size] = accuracy(smaller, smaller.outputs(test), context.test_labels)
        return result.model_copy(update={"curve": dict(sorted(curve.items()))})

    def _add_encrypted(
        self, context: PairContext, fitted: dict[str, Classifier], results: dict[str, MethodResult]
    ) -> None:
        """Send the spec's methods, and the best one without shared texts, through the encrypted path."""
        kinds = {method.name: method.kind for method in self._methods if method.name in results}
        private = [name for name, kind in kinds.items() if kind == "private"]
        best = sorted(private, key=lambda name: -results[name].accuracy)[:1]
        wanted = [name for name in self._spec.encrypted if kinds.get(name, "reference") != "reference"]
        for name in dict.fromkeys([*wanted, *best]):
            encrypted = measure_encrypted(
                fitted[name],
                context.test.client,
                context.test_labels,
                context.outliers.client,
                self._spec.encrypted_examples,
            )
            results[name] = results[name].model_copy(update={"encrypted": encrypted})
