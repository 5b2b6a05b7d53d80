"""Generation over HTTP, as OpenAI has it: whole, or as server-sent events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from starlette.responses import Response, StreamingResponse

from sealign.generation.sampling import Sampling
from sealign_client.daemon.http.backend import Token
from sealign_client.daemon.http.operations import EVENTS, JSON, Call, Operation, json_response
from sealign_client.daemon.http.problems import problem_of
from sealign_client.daemon.http.schemas import (
    Ciphertexts,
    Completion,
    CompletionChoice,
    CompletionRequest,
    Logprobs,
    Usage,
)

_HEADERS = {"X-Accel-Buffering": "no"}


async def complete(call: Call) -> Response:
    """Answer ``POST /v1/completions``."""
    body: CompletionRequest = call.body
    tokens = _tokens(call)
    # The first token is awaited before the answer begins, so that what is wrong with the request becomes a status.
    first = await anext(tokens, None)
    answer = _Answer(first.task if first else "", body.logprobs is not None, body.mixture)
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        events = _events(answer, _joined(first, tokens), with_usage=with_usage)
        return StreamingResponse(events, media_type=EVENTS, headers=_HEADERS)
    async with aclosing(_joined(first, tokens)) as following:
        async for token in following:
            answer.add(token)
    return json_response(answer.whole())


@dataclass
class _Answer:
    """A completion as it grows."""

    model: str
    with_logprobs: bool
    mixture: bool
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    tokens: list[Token] = field(default_factory=list)

    def add(self, token: Token) -> None:
        self.tokens.append(token)

    def whole(self) -> Completion:
        """Return everything as one completion."""
        text = "".join(token.text for token in self.tokens)
        finish = _finish(self.tokens[-1].finish if self.tokens else "length")
        logprobs = _logprobs(self.tokens, 0) if self.with_logprobs else None
        choice = CompletionChoice(text=text, logprobs=logprobs, finish_reason=finish)
        return self._completion([choice], self.usage(), self.tokens)

    def chunk(self, token: Token, offset: int) -> Completion:
        """Return one token as a chunk."""
        logprobs = _logprobs([token], offset) if self.with_logprobs else None
        choice = CompletionChoice(text=token.text, logprobs=logprobs, finish_reason=_finish(token.finish))
        return self._completion([choice], None, [token])

    def last(self) -> Completion:
        """Return the chunk that carries usage."""
        return self._completion([], self.usage(), [])

    def usage(self) -> Usage:
        """Return usage; the prompt's tokens are the local model's own business and count as none."""
        return Usage(prompt_tokens=0, completion_tokens=len(self.tokens), total_tokens=len(self.tokens))

    def _completion(self, choices: list[CompletionChoice], usage: Usage | None, tokens: list[Token]) -> Completion:
        return Completion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=choices,
            mixture=self.mixture,
            usage=usage,
            ciphertexts=_ciphertexts(tokens),
        )


async def _tokens(call: Call) -> AsyncGenerator[Token, None]:
    body: CompletionRequest = call.body
    prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    sampling = Sampling(
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        repetition_penalty=body.repetition_penalty,
        no_repeat_run=body.no_repeat_run,
        seed=secrets.randbits(63) if body.seed is None else body.seed,
        stop=stop,
    )
    service = call.service
    found = service.backend.generate(prompt, body.model, body.max_tokens, sampling, body.logprobs or 0, body.mixture)
    async for token in found:
        service.metrics.count_token()
        yield token


async def _joined(first: Token | None, rest: AsyncGenerator[Token, None]) -> AsyncGenerator[Token, None]:
    async with aclosing(rest):
        if first is not None:
            yield first
        async for token in rest:
            yield token


async def _events(answer: _Answer, tokens: AsyncGenerator[Token, None], *, with_usage: bool) -> AsyncIterator[str]:
    offset = 0
    try:
        async with aclosing(tokens):
            async for token in tokens:
                answer.add(token)
                yield _event(answer.chunk(token, offset).model_dump_json(exclude={"usage"}))
                offset += len(token.text)
        if with_usage:
            yield _event(answer.last().model_dump_json())
        yield _event("[DONE]")
    except Exception as error:  # noqa: BLE001 - the status is sent already; the stream says what happened
        problem = problem_of(error)
        yield _event(json.dumps({"error": {"message": problem.detail, "type": problem.title, "code": problem.code}}))


def _event(data: str) -> str:
    return f"data: {data}\n\n"


def _ciphertexts(tokens: list[Token]) -> Ciphertexts:
    return Ciphertexts(
        query_bytes=sum(token.timing.request_bytes for token in tokens),
        reply_bytes=sum(token.timing.reply_bytes for token in tokens),
        silo_ms=round(sum(token.timing.server for token in tokens), 3),
    )


def _finish(finish: str | None) -> Literal["stop", "length"] | None:
    if finish is None:
        return None
    return "stop" if finish in ("end", "stop") else "length"


def _logprobs(tokens: list[Token], offset: int) -> Logprobs:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    silo = [token.silo_log_probability for token in tokens if token.silo_log_probability is not None]
    return Logprobs(
        tokens=[token.text for token in tokens],
        token_logprobs=[token.log_probability for token in tokens],
        top_logprobs=[dict(token.alternatives) for token in tokens],
        text_offset=offsets,
        silo_token_logprobs=silo or None,
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/completions",
        name="createCompletion",
        tag="generation",
        summary="Continue a prompt. The convention of OpenAI.",
        handler=complete,
        body=CompletionRequest,
        answer=Completion,
        media=(JSON, EVENTS),
        faults=(404, 409, 429, 502, 503, 504),
        works=True,
    ),
)
