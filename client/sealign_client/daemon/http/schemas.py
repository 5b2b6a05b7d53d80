"""Bodies of the public endpoints, by the conventions that developers have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sealign.encoders.settings import LongTexts

MAX_TEXTS = 1024
"""In one request."""

Text = Annotated[
    str,
    Field(
        min_length=1,
        pattern=r"\S",
        description="A text with something to read. Within the model's window, unless truncated.",
    ),
]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
OneText = Annotated[list[Text], Field(min_length=1, max_length=1)]
Batch = Annotated[list[OneText], Field(min_length=1, max_length=MAX_TEXTS)]
TaskName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9._-]+$")]


def _integer(value: object) -> object:
    """Take 5.0 for 5, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _false(value: object) -> object:
    """Take 0 for a number and not for false."""
    return value if isinstance(value, bool) else "a number"


Count = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_integer)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1), BeforeValidator(_integer)]
Alternatives = Annotated[int, Field(ge=0, le=5), BeforeValidator(_integer)]


class Body(BaseModel):
    """A request's body; unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PredictRequest(Body):
    """As text-embeddings-inference has it, and `task`."""

    inputs: (
        Text
        | Annotated[
            list[Annotated[list[Text], Field(min_length=1, max_length=1)]], Field(min_length=1, max_length=MAX_TEXTS)
        ]
    ) = Field(description='One text, or a batch of texts, each in a list of its own: [["first"], ["second"]].')
    raw_scores: bool = Field(default=False, description="Return logits instead of probabilities.")
    truncate: bool = Field(
        default=False, description="Read the beginning of texts beyond the model's window. By default they are refused."
    )
    task: TaskName | None = Field(default=None, description="The silo's task; may be absent if it has one.")


class Score(BaseModel):
    """A label and its score."""

    score: float = Field(description="Probability, or logit if raw scores were asked for.")
    label: str


class ClassifyRequest(Body):
    """As vLLM has it."""

    model: TaskName | None = Field(default=None, description="The silo's task; may be absent if it has one.")
    input: Text | Texts = Field(description="One text or several.")
    long_texts: LongTexts | None = Field(
        default=None, description="For texts beyond the model's window. By default as the daemon's settings say."
    )
    user: str | None = Field(default=None, max_length=256, description="Ignored.")


class Classified(BaseModel):
    """The classification of one text."""

    index: int = Field(description="Of the text in the request.")
    label: str
    probs: list[float] = Field(description="In the order of the task's labels, as /info has them.")
    num_classes: int
    in_distribution: bool | None = Field(
        description="False if the text is unlike those that the silo's classifier knows; null if it cannot say."
    )
    calibrated: bool = Field(description="Whether probabilities were calibrated for this daemon's map.")


class Usage(BaseModel):
    """Tokens of the local model."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = 0


class ClassifyResponse(BaseModel):
    """Classifications, in the order of the texts."""

    id: str
    object: Literal["list"] = "list"
    created: int = Field(description="Unix time, seconds.")
    model: str
    data: list[Classified]
    usage: Usage


class StreamOptions(Body):
    """How a stream is sent."""

    include_usage: bool = Field(default=False, description="Send usage in a last chunk.")


class CompletionRequest(Body):
    """As OpenAI has it, with vLLM's `top_k` and `repetition_penalty`, and `no_repeat_run` and `mixture`."""

    model: TaskName | None = Field(default=None, description="The silo's generation task; may be absent if it has one.")
    prompt: Text | OneText
    max_tokens: Count = Field(default=16, description="The silo may impose a lower limit.")
    temperature: float = Field(default=1.0, ge=0.0, le=2.0, description="0 takes the likeliest token each time.")
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: Count | None = None
    repetition_penalty: float = Field(default=1.0, ge=0.1, le=10.0)
    no_repeat_run: int = Field(
        default=0, ge=0, le=32, description="No run of this number of tokens is written twice; 0 allows all."
    )
    mixture: bool = Field(
        default=False, description="Sample from the mixture with this daemon's own model that alignment fitted."
    )
    seed: Seed | None = Field(default=None, description="Random seed for sampling.")
    stop: Annotated[str, Field(min_length=1, max_length=256)] | (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=4)] | None
    ) = Field(default=None, description="Up to 4 texts that end a generation before them.")
    stream: bool = Field(default=False, description="Send tokens as server-sent events.")
    stream_options: StreamOptions | None = Field(default=None, description="Only with stream.")
    logprobs: Alternatives | None = Field(default=None, description="Number of likeliest tokens to report.")
    n: Annotated[Literal[1], BeforeValidator(_integer)] = 1
    best_of: Annotated[Literal[1], BeforeValidator(_integer)] = 1
    echo: Annotated[Literal[False], BeforeValidator(_false)] = False
    presence_penalty: float = Field(default=0.0, ge=0.0, le=0.0)
    frequency_penalty: float = Field(default=0.0, ge=0.0, le=0.0)
    user: str | None = Field(default=None, max_length=256, description="Ignored.")


class Logprobs(BaseModel):
    """Natural log-probabilities under what was sampled from: the silo's head, or the mixture."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]
    silo_token_logprobs: list[float] | None = Field(
        default=None, description="With a mixture, under the silo's head alone."
    )


class CompletionChoice(BaseModel):
    """The continuation, or a piece of it."""

    index: int = 0
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None


class Ciphertexts(BaseModel):
    """What crossed the network for the tokens of a completion, or of one chunk."""

    query_bytes: int = Field(description="Bytes of encrypted hidden states that were sent.")
    reply_bytes: int = Field(description="Bytes of encrypted logits that came back.")
    silo_ms: float = Field(description="Milliseconds that the silo spent on them.")


class Completion(BaseModel):
    """A completion, or one chunk of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int = Field(description="Unix time, seconds.")
    model: str
    choices: list[CompletionChoice]
    mixture: bool = Field(default=False, description="Whether tokens come from the mixture, not the silo's head alone.")
    usage: Usage | None = None
    ciphertexts: Ciphertexts = Field(description="Sealign's own; OpenAI has nothing like it.")


class Canaries(BaseModel):
    """How the silo has answered canaries, for one version of a task; see the setting `canaries`."""

    task: str
    compared: int = Field(description="Answers that were compared with the first ones.")
    wrong: int = Field(description="Those further from them than the promised precision allows.")
    is_alarm: bool = Field(description="Whether an honest silo answers so in 1 case of 1,000,000 at most.")
    confidence: float = Field(description="1 less the chance that an honest silo looks as bad as this.")


class Model(BaseModel):
    """A task, as OpenAI describes a model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = Field(description="The silo's name.")


class ModelList(BaseModel):
    """The silo's tasks that this daemon can use."""

    object: Literal["list"] = "list"
    data: list[Model]


class Alive(BaseModel):
    """The daemon runs."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """The silo answers, and at least one task can be used."""

    status: Literal["ready"] = "ready"
    silo: str
    tasks: int


class TaskInfo(BaseModel):
    """A task, as this daemon can use it."""

    name: str
    description: str
    kind: Literal["classification", "generation"]
    ready: bool = Field(description="False until this daemon has been aligned with the silo.")
    labels: list[str]
    held_out_accuracy: float | None
    mapped_accuracy: float | None


class Info(BaseModel):
    """What this daemon is."""

    version: str
    encoder: str | None
    model: str | None
    max_texts: int
    max_body_bytes: int
    max_concurrent: int
    silo: str | None = Field(description="null while the silo cannot be reached.")
    identity: str | None = Field(description="Of this daemon, as the silo records it.")
    tasks: list[TaskInfo]
    canaries: list[Canaries] = Field(description="Empty while no answer is known.")
