"""Which part of an evaluation to run: ``--only dataset=trec --only public=wikipedia``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sealign.errors import InvalidInputError
from sealign.lab.evaluation.methods import Method, registry
from sealign.lab.evaluation.spec import EvaluationSpec, GenerationSpec, PairSpec

_PARTS = {"classification": ("pair", "dataset", "public", "seed", "method"), "generation": ("generation",)}
"""Of an evaluation, and the kinds that belong to each."""


@dataclass(frozen=True)
class Work:
    """One cell to measure."""

    pair: PairSpec
    dataset: str
    public: str
    seed: int


class Selection:
    """The cells, methods and pairs for generation of a spec that are to be measured.

    Args:
        spec: the whole.
        only: items ``kind=name``, kind one of pair, dataset, public, seed, method and generation, or part, whose names
            are classification and generation; items of one kind add up. With items, only the parts run that an item
            names or belongs to.

    Raises:
        InvalidInputError: a kind or a name that the spec does not have.
    """

    def __init__(self, spec: EvaluationSpec, only: Sequence[str] = ()) -> None:
        known = registry(spec.few_shot, None if spec.synthetic is None else spec.synthetic.count)
        for key in ("methods", "curve", "encrypted"):
            unknown = [name for name in getattr(spec, key) if name not in known]
            if unknown:
                raise InvalidInputError(f"{key}: there is no {unknown[0]!r} among {', '.join(known)}")
        self._chosen: dict[str, tuple[str, ...]] = {
            "pair": tuple(pair.name for pair in spec.pairs),
            "dataset": tuple(spec.datasets),
            "public": tuple(spec.public),
            "seed": tuple(map(str, spec.seeds)),
            "method": spec.methods or tuple(known),
            "generation": tuple(pair.name for pair in spec.generation),
            "part": tuple(_PARTS),
        }
        wanted: dict[str, set[str]] = {}
        for item in only:
            kind, _, name = item.partition("=")
            if kind not in self._chosen:
                raise InvalidInputError(f"--only {item}: give {'|'.join(self._chosen)}=name")
            if name not in self._chosen[kind]:
                known_names = ", ".join(self._chosen[kind]) or "none"
                raise InvalidInputError(f"--only {item}: no {kind} of that name; there are {known_names}")
            wanted.setdefault(kind, set()).add(name)
        for kind, names_of_kind in wanted.items():
            self._chosen[kind] = tuple(name for name in self._chosen[kind] if name in names_of_kind)
        parts = wanted.pop("part", set()) | {part for part, kinds in _PARTS.items() if set(kinds) & set(wanted)}
        self._parts = parts or set(_PARTS)
        generation = self._chosen["generation"] if "generation" in self._parts else ()
        self.generation: tuple[GenerationSpec, ...] = tuple(p for p in spec.generation if p.name in generation)
        self.methods: tuple[Method, ...] = tuple(known[name] for name in self._chosen["method"])
        self._pairs = {pair.name: pair for pair in spec.pairs}

    def __iter__(self) -> Iterator[Work]:
        """Cells, those that share trained heads one after the other."""
        if "classification" not in self._parts:
            return
        for pair in self._chosen["pair"]:
            for dataset in self._chosen["dataset"]:
                for seed in self._chosen["seed"]:
                    for public in self._chosen["public"]:
                        yield Work(self._pairs[pair], dataset, public, int(seed))
