"""Measures one pair of causal models: maps of hidden states, and what the silo's head predicts behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from sealign.alignment import AffineMap, PublicSet, RidgeStatistics, fit_ridge
from sealign.app.progress import progress
from sealign.encoders import EncoderSettings
from sealign.encoders.causal import CausalModel
from sealign.errors import InvalidInputError
from sealign.files import row_parts
from sealign.generation import Agreement, compare_tokenizers, measure_agreement, models_agreement
from sealign.generation.kl import HELD_OUT, refine_by_divergence
from sealign.generation.whitening import Whitening
from sealign.lab.evaluation.code import code_digest
from sealign.lab.evaluation.generation.control import Control
from sealign.lab.evaluation.generation.encrypted import encrypted_prediction
from sealign.lab.evaluation.generation.pair import Pair
from sealign.lab.evaluation.generation.samples import samples
from sealign.lab.evaluation.generation.states import StateCache, States, enough_texts
from sealign.lab.evaluation.generation_results import CausalResult, GenerationResult, MixedPrediction, Prediction
from sealign.lab.evaluation.spec import EvaluationSpec, GenerationSpec
from sealign.lab.evaluation.texts import Texts, digest

_MEASURING = ("alignment", "ckks", "generation", "lab/evaluation/generation")
"""Packages whose code decides results."""


class GenerationRunner:
    """Loads the models of some pairs, and measures one pair after the other.

    Args:
        spec: names the models.
        pairs: those of its pairs that are to be measured.
        directory: of the cache of states.

    Raises:
        NotFoundError, StorageError: a file of texts is missing or cannot be read.
        InvalidInputError: a model cannot be loaded or is not causal, a public text is a test text too, or texts have
            too few positions; with the pair and the key of the spec.
    """

    def __init__(self, spec: EvaluationSpec, pairs: Sequence[GenerationSpec], directory: Path) -> None:
        self._encoders = spec.encoders
        self._models: dict[str, CausalModel] = {}
        self._states = StateCache(directory)
        self._code = code_digest(_MEASURING)
        texts = {path: PublicSet.from_file(path).texts for pair in pairs for path in (pair.public, pair.test)}
        for pair in pairs:
            both = len(set(texts[pair.public]) & set(texts[pair.test]))
            if both:
                raise InvalidInputError(
                    f"generation {pair.name}: {both} of the public texts are test texts, too, where they would be "
                    "measured on what they were aligned over; leave them out of one"
                )
        self._pairs = {pair.name: self._pair(pair, texts[pair.public], texts[pair.test]) for pair in pairs}

    def digest(self, name: str) -> str:
        """Of all that decides a pair's result."""
        pair = self._pairs[name]
        settings = pair.spec.model_dump_json(exclude={"public", "test"})
        models = (pair.client.card.fingerprint, pair.silo.card.fingerprint)
        return digest((settings, self._code, *models), pair.public, pair.test)

    def result(self, name: str) -> GenerationResult:
        """Read states, fit maps and measure them.

        Raises:
            InvalidInputError: a text that a model cannot read, or logits that no parameter set can hold.
            StorageError: the cache of states fails.
        """
        pair = self._pairs[name]
        spec, silo = pair.spec, pair.silo
        public, test = self._read(pair, pair.public, spec.rows), self._read(pair, pair.test, spec.test_rows)
        whitening = Whitening.fit(public.client) if pair.client.whitens else None
        if whitening is not None:
            public, test = (self._states.whitened(part, whitening) for part in (public, test))
        smaller = {size: _agreements(silo, _fitted(pair, public, size)[0], test) for size in sorted(spec.sizes)}
        maps, seconds = _fitted(pair, public, spec.rows)
        found = _agreements(silo, maps, test)
        by_size = smaller | {spec.rows: found}
        last = list(maps.values())[-1]
        started, sent = perf_counter(), test.client[: spec.encrypted_rows]
        encrypted = encrypted_prediction(name, silo.head, last, public.client, sent) if len(sent) else None
        seconds |= {"encrypted": perf_counter() - started} if len(sent) else {}
        sides = (pair.client.head, pair.client.tokenizer, test.final), (silo.head, silo.tokenizer, test.silo)
        alike = compare_tokenizers(pair.client.tokenizer, silo.tokenizer, pair.test)
        control = Control(pair, test)
        mixture, weight = control.mixture(last, public)
        written, repetition = samples(pair, last, whitening)
        return GenerationResult(
            name=spec.name,
            client=_described(spec.client, pair.client),
            silo=_described(spec.silo, silo),
            rows=spec.rows,
            epochs=spec.epochs,
            positions=found["ridge"].positions,
            explained_variance=maps["ridge"].quality.explained_variance,
            own_perplexity=found["ridge"].own_perplexity,
            own_agreement=models_agreement(*sides),
            jaccard=alike.jaccard,
            exact_match=alike.exact_match,
            boundary_match=alike.boundary_match,
            ridge=_prediction(found["ridge"]),
            refined=_prediction(found["refined"]) if spec.epochs else None,
            control=_prediction(control.alone()),
            mixture=MixedPrediction(weight=weight, **_prediction(mixture).model_dump()),
            curve={kind: {size: by_size[size][kind].perplexity for size in by_size} for kind in maps},
            encrypted=encrypted,
            samples=written,
            repetition=repetition,
            seconds={"reading": public.seconds, **seconds},
        )

    def _pair(self, spec: GenerationSpec, public: Texts, test: Texts) -> Pair:
        client, silo = (self._model(spec, side) for side in ("client", "silo"))
        chosen = []
        for key, texts, rows in (("public", public, spec.rows), ("test", test, spec.test_rows)):
            some, held = enough_texts(silo.tokenizer, texts, rows)
            if held < rows:
                raise InvalidInputError(
                    f"generation {spec.name}: {getattr(spec, key)} holds {held} of the {rows} positions asked for; "
                    f"give more texts or lower {'rows' if key == 'public' else 'test_rows'}"
                )
            chosen.append(some)
        return Pair(spec, client, silo, *chosen)

    def _model(self, spec: GenerationSpec, side: str) -> CausalModel:
        name = getattr(spec, side)
        if name not in self._models:
            try:
                self._models[name] = CausalModel(EncoderSettings.parse(self._encoders[name]))
            except InvalidInputError as error:
                raise InvalidInputError(f"generation {spec.name}, {side} {name}: {error}") from error
        if side == "silo" and self._models[name].whitens:
            raise InvalidInputError(f"generation {spec.name}, silo {name}: a silo's model has no option states")
        return self._models[name]

    def _read(self, pair: Pair, texts: Texts, rows: int) -> States:
        with progress(f"reading for {pair.spec.name}", len(texts)) as advance:
            return self._states.read(pair.client, pair.silo, texts, rows, advance)


def _fitted(pair: Pair, public: States, rows: int) -> tuple[dict[str, AffineMap], dict[str, float]]:
    """The maps over the first rows, the last of them to be used, and the seconds that they took."""
    X, Y = public.client[:rows], public.silo[:rows]
    begun = perf_counter()
    statistics = RidgeStatistics(X.shape[1], Y.shape[1])
    for x, y in zip(row_parts(X), row_parts(Y), strict=True):
        statistics.update(x, y)
    ridge = fit_ridge(
        statistics,
        source_fingerprint=pair.client.card.fingerprint,
        target_fingerprint=pair.silo.card.fingerprint,
        public_set=PublicSet(pair.public).digest,
    )
    maps, seconds = {"ridge": ridge}, {"ridge": perf_counter() - begun}
    epochs = pair.spec.epochs
    if epochs:
        begun, held_in = perf_counter(), rows - int(HELD_OUT * rows)
        with progress(f"refining for {pair.spec.name}", epochs * held_in) as advance:
            refined = refine_by_divergence(ridge, pair.silo.head, X, Y, epochs=epochs, progress=advance)
        maps["refined"], seconds["refining"] = refined.map, perf_counter() - begun
    return maps, seconds


def _agreements(silo: CausalModel, maps: dict[str, AffineMap], test: States) -> dict[str, Agreement]:
    return {
        kind: measure_agreement(silo.head, learned.apply(test.client), test.silo, test.following)
        for kind, learned in maps.items()
    }


def _prediction(found: Agreement) -> Prediction:
    return Prediction(top1=found.top1, top5=found.top5, perplexity=found.perplexity, divergence=found.divergence)


def _described(name: str, model: CausalModel) -> CausalResult:
    card = model.card
    return CausalResult(
        name=name,
        model=card.name,
        dimension=card.dimension,
        vocabulary=card.vocabulary,
        fingerprint=card.fingerprint,
    )
