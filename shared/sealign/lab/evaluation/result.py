"""What every result of an evaluation is: a frozen record that JSON carries."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """A record of what was measured."""

    model_config = ConfigDict(frozen=True)
