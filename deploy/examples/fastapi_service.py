"""A web service that has tickets sorted by a silo: FastAPI and the asynchronous client.

    export SEALIGN_CLIENT_SILO=silo.example:7443 SEALIGN_CLIENT_ENCODER=sentence-transformers/all-MiniLM-L6-v2
    uvicorn fastapi_service:app

The client reads its settings from SEALIGN_CLIENT_… variables, and must be aligned with the silo (`sealign align`).
Requests that are under way together share passes of the encoder, and ciphertexts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from sealign_client import AsyncClient, InvalidInputError, SealignError, client_settings


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[None]:
    """Hold one client as long as the service runs; its model is loaded before the first request."""
    async with AsyncClient(client_settings()) as client:
        await client.encoder()
        app.state.client = client
        yield


app = FastAPI(title="Tickets", lifespan=client_of)


class Ticket(BaseModel):
    """A ticket as it comes in."""

    text: str = Field(min_length=1, max_length=10_000)


class SortedTicket(BaseModel):
    """Where a ticket belongs, as far as the silo's classifier can say."""

    label: str
    probability: float | None
    in_distribution: bool | None


@app.post("/tickets")
async def sort_ticket(ticket: Ticket, request: Request) -> SortedTicket:
    """Sort a ticket. Its text stays in this process; the silo gets a ciphertext."""
    client: AsyncClient = request.app.state.client
    result = await client.classify(ticket.text)
    return SortedTicket(label=result.label, probability=result.probability, in_distribution=result.in_distribution)


@app.exception_handler(SealignError)
async def say_what_failed(_: Request, error: SealignError) -> JSONResponse:
    """Answer 422 to a text that cannot be classified, and 503 to everything that the caller did not cause."""
    if isinstance(error, InvalidInputError):
        return JSONResponse({"detail": str(error)}, status_code=422)
    return JSONResponse(
        {"detail": "Tickets cannot be sorted now."}, 503, headers={"Retry-After": str(round(error.retry_after or 5))}
    )
