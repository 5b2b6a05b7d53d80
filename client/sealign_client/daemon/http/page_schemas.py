"""Bodies of the endpoints that the page needs beyond the public ones."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from sealign_client.daemon.http.problems import Problem
from sealign_client.daemon.http.schemas import Body, TaskName, Text


class TicketRequest(Body):
    """The ticket of the address that the daemon printed."""

    ticket: str = Field(min_length=1, max_length=128)


class Session(BaseModel):
    """A token for the page, until the daemon ends."""

    token: str


class InspectRequest(Body):
    """A text to classify and take apart."""

    text: Text
    task: TaskName | None = None


class Bar(BaseModel):
    """A label and its probability."""

    label: str
    probability: float
    logit: float


class ScoreOnScale(BaseModel):
    """The out-of-distribution score that decides."""

    name: str
    value: float
    threshold: float
    in_distribution: bool | None


class StageTime(BaseModel):
    """Time of one stage."""

    name: str
    ms: float


class Stayed(BaseModel):
    """What did not leave this computer."""

    embedding: list[float]
    key_id: str = Field(description="SHA-256 of the public key. The secret key is never shown, not even to the page.")
    encoder: str


class Left(BaseModel):
    """What crossed the network."""

    parameters: str
    query_bytes: int
    query_sample: str = Field(description="The end of the query's ciphertexts, base64.")
    reply_bytes: int
    reply_sample: str = Field(description="The end of the reply, base64.")


class SiloRecord(BaseModel):
    """What the silo records of the call, in its own names."""

    event: Literal["call"] = "call"
    method: Literal["Classify"] = "Classify"
    identity: str
    request: str
    code: Literal["OK"] = "OK"
    ms: float = Field(description="Time on the ciphertexts.")
    task: str
    encoder: str = Field(description="The encoder's fingerprint.")
    rows: int


class Found(BaseModel):
    """A public text found from what was observed."""

    text: str
    cosine: float


class GivenAway(BaseModel):
    """The nearest public texts, from three things that could have been sent."""

    public_texts: int
    bare: list[Found]
    rotated: list[Found]
    encrypted: list[Found]


class InspectResponse(BaseModel):
    """One call, taken apart."""

    task: str
    label: str
    calibrated: bool
    bars: list[Bar]
    score: ScoreOnScale | None
    stages: list[StageTime]
    stayed: Stayed
    left: Left
    record: SiloRecord
    given_away: GivenAway | None = Field(description="null until the daemon has public texts to search.")


class PublicTextsState(BaseModel):
    """Public texts that the daemon searches."""

    texts: int


class NamedPublicSet(BaseModel):
    """A part of the general set, by the name that alignments take."""

    name: str
    texts: int


class PublicSetList(BaseModel):
    """The parts of the general set that the silo holds, the largest first."""

    public_sets: list[NamedPublicSet]


class MapQuality(BaseModel):
    """A map and how well it does on rows held out from its fit."""

    id: str
    public_set: str
    rows: int
    explained_variance: float
    mean_cosine: float | None
    linear_cka: float | None
    created: str


class MapList(BaseModel):
    """The maps that the encoder can use, the one in use first."""

    maps: list[MapQuality]


class AlignmentState(BaseModel):
    """An alignment under way, or how it ended."""

    id: str
    state: Literal["running", "done", "failed", "cancelled"]
    stage: str
    fraction: float = Field(ge=0, le=1)
    learned: MapQuality | None
    problem: Problem | None
