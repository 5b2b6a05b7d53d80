"""Real text for whole-system tests, a few hundred lines of it, from installed wheels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.demo.data import LabelledText, newsgroups, reuters_r8
from sealign.alignment import PublicSet

_CHARACTERS = 250  # embeds in a few milliseconds
_PER_LABEL = 60


@dataclass(frozen=True)
class Corpus:
    """Labelled texts for the silo, texts for the client, public texts for both."""

    train: list[LabelledText]
    queries: list[LabelledText]
    public: PublicSet

    @classmethod
    def load(cls) -> Corpus:
        """Reuters R8 as the private task, 20 Newsgroups as public texts."""
        train: list[LabelledText] = []
        for item in reuters_r8("train"):
            if sum(item.label == other.label for other in train) < _PER_LABEL:
                train.append(_short(item))
        queries = [_short(item) for item in reuters_r8("test")[:40]]
        public = dict.fromkeys(_short(item).text for item in newsgroups("train")[:320])
        return cls(train, queries, PublicSet(tuple(public)[:300]))

    def write(self, directory: Path) -> tuple[Path, Path]:
        """train.tsv and public.txt in ``directory``."""
        tsv, public = directory / "train.tsv", directory / "public.txt"
        rows = "".join(f"{item.label}\t{item.text}\n" for item in self.train)
        tsv.write_text("label\ttext\n" + rows, encoding="utf-8")
        public.write_text("\n".join(self.public.texts) + "\n", encoding="utf-8")
        return tsv, public


def _short(item: LabelledText) -> LabelledText:
    return LabelledText(item.text[:_CHARACTERS].strip(), item.label)
