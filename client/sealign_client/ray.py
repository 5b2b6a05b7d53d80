"""Bulk classification on a Ray cluster, by workers with one loaded model each.

Texts travel within the cluster in the clear, and to the silo as ciphertexts alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray import data
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from sealign.errors import SealignError, UnavailableError
from sealign_client.blocks import Block, BlockClassifier, Done, Job, iterate_blocks
from sealign_client.frames import FrameClassifier
from sealign_client.records import Record
from sealign_client.row_answers import OnError

if TYPE_CHECKING:
    from sealign_client.settings import ClientSettings

_UNDER_WAY = 2
"""Blocks at a worker: one is classified, one waits."""
_READ_BYTES = 1 << 14
"""Ray makes one unit of work of so much input; blocks of rows have more."""


def classify(
    dataset: data.Dataset,
    settings: ClientSettings,
    *,
    column: str = "text",
    task: str | None = None,
    on_error: OnError | str = OnError.FAIL,
    workers: int = 1,
    batch_rows: int = 1024,
) -> data.Dataset:
    """Return a dataset with the columns of :class:`FrameClassifier` added; Ray computes it when it is read.

    Args:
        dataset: with a column of texts.
        settings: of the clients; files that they name must be on every machine.
        column: that holds the texts.
        task: name of the silo's task; may be left out if there is only one.
        on_error: what becomes of a row that cannot be classified.
        workers: processes with one CPU and one loaded model each.
        batch_rows: maximum number of rows that a worker embeds and sends together.
    """
    return dataset.map_batches(
        FrameClassifier,
        fn_constructor_args=(settings, column, task, on_error),
        batch_size=batch_rows,
        batch_format="pandas",
        compute=ActorPoolStrategy(size=workers),
        num_cpus=1,
    )


def classify_files(
    job: Job,
    settings: ClientSettings,
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Classify the rows of files, and return the number of those that were faulty.

    A worker that dies is replaced, and its block done again. An interrupted job resumes when it is given again.

    Args:
        job: files and output, on a disk that every machine of the cluster has; begun.
        settings: of the clients; files that they name must be on every machine.
        workers: processes with one CPU and one loaded model each; None for one per CPU of the cluster.
        advance: told how many rows were done.

    Raises:
        InvalidInputError: a row that cannot be classified, by its number, unless they are skipped or labelled.
        SealignError: as `Client.classify`; and of files.
    """
    blocks = faulty = 0
    for done in _results(job, settings, workers or max(1, int(ray.cluster_resources().get("CPU", 1)))):
        advance(done.rows)
        blocks, faulty = blocks + done.blocks, faulty + done.faulty
    job.finish(blocks)
    return faulty


@contextmanager
def connected(workers: int | None) -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names, or start one on this machine that ends with the context.

    Args:
        workers: CPUs that a cluster started here says to have; None for those of the machine.

    Raises:
        UnavailableError: the cluster that RAY_ADDRESS names cannot be reached.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(**quiet)
        except ConnectionError as error:
            raise UnavailableError(
                f"There is no Ray cluster at {address}, or it refuses you. Check RAY_ADDRESS and RAY_AUTH_TOKEN."
            ) from error
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which Ray would send to its makers
        ray.init(num_cpus=workers, include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _results(job: Job, settings: ClientSettings, workers: int) -> Iterator[Done]:
    context = DataContext.get_current().copy()
    context.target_max_block_size = _READ_BYTES
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    with DataContext.current(context):
        # Reading costs next to nothing, and must not wait for a CPU that a model has.
        read = data.read_datasource(_Blocks(job), override_num_blocks=len(job.files), num_cpus=0)
        done = read.map_batches(
            _Worker,
            fn_constructor_args=(job, settings),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_UNDER_WAY),
            num_cpus=1,
        )
        try:
            for row in done.iter_rows():
                yield Done(**row)
        except Exception as error:
            known = _known(error)
            if known is None:
                raise
            raise known from None


class _Worker:
    """A :class:`BlockClassifier` in a process of Ray's."""

    def __init__(self, job: Job, settings: ClientSettings) -> None:
        self._classifier = BlockClassifier(job, settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([asdict(self._classifier.done(_block(row))) for row in batch.to_pylist()])


class _Blocks(Datasource):  # type: ignore[misc, unused-ignore]
    """Blocks of rows of files; each file is read by one process, as far ahead as Ray has room for."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(partial(_tables, self._job, file), unknown) for file in range(len(self._job.files))]


def _tables(job: Job, file: int) -> Iterable[pa.Table]:
    """Yield each block as a table of one row."""
    for block in iterate_blocks(job, file):
        yield pa.Table.from_pylist([asdict(block)], _BLOCK)


_BLOCK = pa.schema(
    [
        ("file", pa.int64()),
        ("number", pa.int64()),
        (
            "records",
            pa.list_(
                pa.struct(
                    [
                        ("number", pa.int64()),
                        ("text", pa.string()),
                        ("name", pa.string()),
                        ("fault", pa.string()),
                        ("embedding", pa.list_(pa.float32())),
                    ]
                )
            ),
        ),
    ]
)


def _block(row: dict[str, Any]) -> Block:
    return Block(row["file"], row["number"], tuple(_record(**record) for record in row["records"]))


def _record(embedding: list[float] | None, **facts: Any) -> Record:
    return Record(**facts, embedding=None if embedding is None else np.array(embedding, dtype=np.float32))


def _known(error: BaseException | None) -> SealignError | None:
    """Return the error of a worker's that a person should see; Ray wraps it."""
    while error is not None:
        cause = getattr(error, "cause", None)
        for found in (cause, error):
            if isinstance(found, SealignError) and type(found).__module__.startswith("sealign"):
                return found
        error = error.__cause__ or error.__context__
    return None
