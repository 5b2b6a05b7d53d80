"""The calls of text generation, over the same connection as the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sealign.ckks import EncryptedMatrix, EncryptedProduct
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError
from sealign.protocol import GenerationCard, MapCard
from sealign.protocol.conversions import encoder_to_wire, map_from_wire, matrix_to_wire, product_from_wire
from sealign.protocol.generation import generation_from_wire
from sealign.protocol.v1 import generation_pb2 as pb
from sealign.protocol.v1 import silo_pb2
from sealign_client.connection import ALIGN_SECONDS, SiloConnection


class GenerationConnection(SiloConnection):
    """Calls to one silo, those of generation among them. Use inside a running event loop.

    Raises:
        InvalidInputError, AuthenticationError: certificate files that cannot work.
    """

    async def generation_tasks(self, model: EncoderCard, mapped_over: str = "") -> tuple[GenerationCard, ...]:
        """The generation tasks, as a model can use them; ``mapped_over`` as in :meth:`describe`."""
        request = pb.DescribeGenerationRequest(
            model=model.fingerprint, mapped_over=mapped_over, dimension=model.dimension
        )
        # The first to ask waits until the vocabulary is encoded.
        reply = await self._call(self._generation.DescribeGeneration(request, timeout=ALIGN_SECONDS))
        return tuple(generation_from_wire(card, self._table) for card in reply.tasks)

    async def tokenizer(self, card: GenerationCard) -> bytes:
        """A task's tokenizer.

        Raises:
            InvalidInputError: the silo sends more than it announced.
        """
        content = bytearray()
        with self._errors():
            async for piece in self._generation.FetchTokenizer(
                pb.FetchTokenizerRequest(task=card.name), timeout=ALIGN_SECONDS
            ):
                content += piece.content
                if len(content) > card.tokenizer_bytes:
                    raise InvalidInputError(
                        f"the silo's tokenizer is larger than the {card.tokenizer_bytes} bytes it said"
                    )
        return bytes(content)

    async def align_states(
        self, task: str, model: EncoderCard, public_set: str, rows: int, chunks: Iterable[NDArray[np.float32]]
    ) -> MapCard:
        """Stream states over a public set; the silo learns the map."""

        def requests() -> Iterator[pb.AlignStatesRequest]:
            header = pb.AlignStatesHeader(task=task, model=encoder_to_wire(model), public_set=public_set, rows=rows)
            yield pb.AlignStatesRequest(header=header)
            for chunk in chunks:
                values = np.ascontiguousarray(chunk, dtype="<f4").tobytes()
                yield pb.AlignStatesRequest(rows=silo_pb2.EmbeddingRows(values=values))

        reply = await self._call(self._generation.AlignStates(requests(), timeout=ALIGN_SECONDS))
        return map_from_wire(reply.map)

    async def next_token(
        self, card: GenerationCard, model: str, query: EncryptedMatrix, mapped_over: str = ""
    ) -> AsyncIterator[tuple[int, EncryptedProduct, float]]:
        """Encrypted logits of the vocabulary in parts: first output block, product, milliseconds at the silo so far."""
        request = pb.NextTokenRequest(
            task=card.name,
            model=model,
            query=matrix_to_wire(query),
            revision=card.revision,
            mapped_over=mapped_over,
        )
        call = self._generation.NextToken(request, timeout=self._timeout)
        try:
            with self._errors():
                async for part in call:
                    yield part.first_block, product_from_wire(part.logits), part.server_micros / 1e3
        finally:
            call.cancel()
