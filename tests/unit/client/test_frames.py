"""The classifier as a function of frames, and files classified block by block, without a cluster."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealign.errors import InvalidInputError, StorageError
from sealign_client import Client, ClientSettings
from sealign_client.frames import FrameClassifier, _client, client_of
from sealign_client.records import Columns, Format
from sealign_client.row_answers import OnError
from tests.support.fakesilo import Address, FakeSilo, clear_labels
from tests.support.views import PUBLIC, client_encoder, installed_views

pd = pytest.importorskip("pandas", reason="needs pandas (extra `ray`)")
pytest.importorskip("pyarrow", reason="needs pyarrow (extra `ray`)")

TEXTS = [f"query {number}" for number in range(50)]


@pytest.fixture
def settings(address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClientSettings]:
    """Settings of an aligned client."""
    fields = address.settings(map_directory=tmp_path / "maps")
    with Client(**fields, encoder=client_encoder()) as client:
        client.align(PUBLIC)
    (tmp_path / "views").mkdir()
    for place in reversed(installed_views(tmp_path / "views").split(":")):
        monkeypatch.syspath_prepend(place)
    settings = ClientSettings(**fields, encoder="views:")
    yield settings
    client_of(settings).close()
    _client.cache_clear()


def test_a_frame_keeps_rows_and_gets_columns(settings: ClientSettings, fake: FakeSilo) -> None:
    frame = pd.DataFrame({"id": range(50), "text": TEXTS}, index=[f"r{number}" for number in range(50)])
    classifier: FrameClassifier = pickle.loads(pickle.dumps(FrameClassifier(settings)))  # noqa: S301
    calls = list(fake.calls)
    empty = classifier(frame.iloc[:0])
    assert fake.calls == calls  # without a client
    found = classifier(frame)
    assert (found.dtypes == empty.dtypes).all()
    assert found[["id", "text"]].equals(frame)
    labels, certain = clear_labels(fake, client_of(settings), TEXTS)
    assert all(found["label"].iloc[n] == labels[n] for n in range(50) if certain[n])
    (again,) = classifier.partitions([frame])
    assert again["label"].iloc[certain.nonzero()[0]].equals(found["label"].iloc[certain.nonzero()[0]])


def test_rows_that_cannot_be_classified(settings: ClientSettings) -> None:
    frame = pd.DataFrame({"text": ["good", None, " ", 5, "good too"]})
    with pytest.raises(InvalidInputError, match="index 1: has no text"):
        FrameClassifier(settings)(frame)
    assert FrameClassifier(settings, on_error="skip")(frame).index.tolist() == [0, 4]
    labelled = FrameClassifier(settings, on_error="label")(frame)
    assert labelled["label"].isna().tolist() == [False, True, True, True, False]
    assert labelled["error"].notna().tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("columns", [{"review": ["a"]}, {"text": ["a"], "label": ["b"]}])
def test_frames_that_do_not_fit_are_refused_by_column(settings: ClientSettings, columns: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="needs a column 'text' and none of label"):
        FrameClassifier(settings)(pd.DataFrame(columns))


def test_dask_classifies_partitions(settings: ClientSettings, fake: FakeSilo) -> None:
    dask = pytest.importorskip("dask.dataframe", reason="needs dask (extra `dev`)")
    classifier = FrameClassifier(settings)
    frame = dask.from_pandas(pd.DataFrame({"text": TEXTS}), npartitions=3)
    found = frame.map_partitions(classifier, meta=classifier(frame.head(0))).compute(scheduler="threads")
    labels, certain = clear_labels(fake, client_of(settings), TEXTS)
    assert all(found["label"].iloc[n] == labels[n] for n in range(50) if certain[n])


# Blocks


def job(tmp_path: Path, content: str, **options: Any) -> Any:
    from sealign_client.blocks import Job

    file = tmp_path / "in.jsonl"
    file.write_text(content)
    return Job((file,), Format.JSONL, Columns("text", "id"), tmp_path / "out", block_rows=20, **options)


def rows(texts: list[str]) -> str:
    return "".join(json.dumps({"id": f"r{number}", "text": text}) + "\n" for number, text in enumerate(texts))


def classified(job: Any, settings: ClientSettings, limit: int | None = None) -> list[Any]:
    """Classify blocks, the last first."""
    from sealign_client.blocks import BlockClassifier, iterate_blocks

    classifier, blocks = BlockClassifier(job, settings), list(iterate_blocks(job, 0))
    return [classifier.done(block) for block in blocks[::-1][:limit]]


def test_blocks_resume_and_are_complete_once(settings: ClientSettings, tmp_path: Path, fake: FakeSilo) -> None:
    from pyarrow import dataset

    bulk = job(tmp_path, rows(TEXTS))
    bulk.begin({"silo": "a"})
    end, done = classified(bulk, settings, 2)
    assert (end.blocks, done.rows) == (3, 10)
    with pytest.raises(StorageError, match="1 of 3 parts"):
        bulk.finish(end.blocks)
    with pytest.raises(InvalidInputError, match=r"another input \(silo\)"):
        bulk.begin({"silo": "b"})
    (bulk.output / ".part-00000-0000000.parquet.abc.tmp").write_bytes(b"of a worker that was killed")
    bulk.begin({"silo": "a"})
    asked = len(fake.calls)
    assert [each.rows for each in classified(bulk, settings)] == [0, 20, 20]
    assert len(fake.calls) > asked
    bulk.finish(3)
    with pytest.raises(InvalidInputError, match="is complete"):
        bulk.begin({"silo": "a"})
    assert sorted(path.name for path in bulk.output.iterdir()) == [
        "_about.json", *(f"part-00000-{number:07d}.parquet" for number in range(3))
    ]  # fmt: skip
    found = dataset.dataset(bulk.output, format="parquet").to_table().to_pylist()
    assert [row["row"] for row in found] == [f"r{number}" for number in range(50)]
    assert {row["file"] for row in found} == {"in.jsonl"}
    labels, certain = clear_labels(fake, client_of(settings), TEXTS)
    assert all(row["label"] == labels[n] for n, row in enumerate(found) if certain[n])


def test_faulty_rows_of_blocks(settings: ClientSettings, tmp_path: Path) -> None:
    from pyarrow import parquet

    content = rows(TEXTS[:5]) + "not JSON\n"
    with pytest.raises(InvalidInputError, match="row 6"):
        job(tmp_path, content).begin({})
    assert not (tmp_path / "out").exists()
    labelled = job(tmp_path, content, on_error=OnError.LABEL)
    labelled.begin({})
    assert [each.faulty for each in classified(labelled, settings)] == [0, 1]
    (last,) = parquet.read_table(tmp_path / "out" / "part-00000-0000000.parquet").to_pylist()[5:]
    assert (last["label"], "is not JSON" in last["error"], last["row"]) == (None, True, "6")


def test_an_output_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").touch()
    with pytest.raises(InvalidInputError, match="holds something else"):
        job(tmp_path, rows(TEXTS)).begin({})


def test_parquet_is_read_as_other_tables(tmp_path: Path) -> None:
    from pyarrow import parquet, table

    from sealign_client.records import iterate_records, require_faultless

    file = tmp_path / "in.parquet"
    parquet.write_table(table({"review": [*TEXTS, None, ""], "order": [*range(50), 7, None]}), file, row_group_size=7)
    with file.open("rb") as stream:
        found = list(iterate_records(stream, Format.of(file), Columns("review", "order"), "in.parquet"))
    assert [(record.text, record.name) for record in found[:50]] == [(text, str(n)) for n, text in enumerate(TEXTS)]
    assert [(record.number, record.name) for record in found if record.fault] == [(51, "7"), (52, "52")]
    with pytest.raises(InvalidInputError, match="row 51: has an empty text"):
        require_faultless(file, Format.PARQUET, Columns("review"))
    with pytest.raises(InvalidInputError, match="its columns are: review, order"):
        require_faultless(file, Format.PARQUET, Columns("text"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InvalidInputError, match="no Parquet file, or damaged"):
        require_faultless(file, Format.PARQUET, Columns("review"))
