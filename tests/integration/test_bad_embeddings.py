"""Texts and embeddings that cannot be classified: refused before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from sealign.errors import InvalidInputError, NotFoundError
from sealign_client import Client
from sealign_client.local.silo_keys import SiloKeys, SiloTrust
from sealign_client.transport import ClassificationCalls, Query, SiloConnection, credentials_of
from tests.support.corpus import Corpus
from tests.support.processes import Server
from tests.support.silo import Tls
from tests.support.wire import Embeddings

pytestmark = [pytest.mark.usefixtures("still_serves"), pytest.mark.timeout(60)]


@pytest.mark.parametrize("count", [1, 32, 1100])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(client: Client, query_rows: Embeddings, count: int, value: float) -> None:
    rows = np.tile(query_rows, (28, 1))[:count]
    rows[-1, 5] = value
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        client.logits(rows)


@pytest.mark.parametrize("count", [1, 32, 1100])
def test_rows_that_are_not_normalised(client: Client, query_rows: Embeddings, count: int) -> None:
    rows = np.tile(query_rows, (28, 1))[:count] * np.float32(1.5)
    with pytest.raises(InvalidInputError, match="normalise the embeddings"):
        client.logits(rows)


@pytest.mark.parametrize("shape", [(1, 383), (1, 512), (1100, 385), (384,), (1, 1, 384)])
def test_wrong_shapes(client: Client, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"dimension 384|shape \(texts, dimension\)"):
        client.logits(np.zeros(shape, np.float32))


def test_no_rows_give_no_logits(client: Client) -> None:
    assert client.logits(np.zeros((0, 384), np.float32)).shape == (0, 8)


def test_empty_texts_are_named_by_index(client: Client) -> None:
    for empty in ("", "  \n"):
        with pytest.raises(InvalidInputError, match="text 2 is empty"):
            client.classify(["interest rates rose", empty])


def test_huge_texts(client: Client) -> None:
    with pytest.raises(InvalidInputError, match="1 of 1 texts are longer than the 256 tokens"):
        client.classify(["crude oil prices rose " * 40_000])
    with pytest.raises(InvalidInputError, match="text 1 has 1,100,000 characters"):
        client.classify(["crude oil " * 110_000])


def test_texts_that_are_not_unicode(client: Client) -> None:
    with pytest.raises(InvalidInputError, match="lone surrogate"):
        client.classify(["bad \ud800 half"])


def test_unknown_task(silo: Server, client: Client, corpus: Corpus) -> None:
    with pytest.raises(NotFoundError, match="no task 'weather'; its tasks are: topics"):
        client.classify([corpus.queries[0].text], task="weather")


async def test_a_stream_whose_queries_fail_ends(silo: Server, tls: Tls, client: Client, tmp_path: Path) -> None:
    async def queries() -> AsyncIterator[Query]:
        raise InvalidInputError("the query cannot be made")
        yield  # an asynchronous generator

    settings = tls.client_settings(silo.port)
    endpoint = settings.endpoint
    trust = SiloTrust(endpoint.address, SiloKeys(tmp_path), None)
    connection = SiloConnection(endpoint, credentials_of(endpoint), trust)
    plan = client.describe().tasks[0].plans[0]
    with pytest.raises(InvalidInputError, match="cannot be made"):
        async for _ in ClassificationCalls(connection).classify_stream(queries(), plan, timeout=30.0):
            pass
    await connection.close()
