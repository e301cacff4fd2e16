"""Records of a run's files, which check the values that are read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from flatmin.experiments.config import Experiment
from flatmin.experiments.runs.images import StoredInputs

#: Per cent.
Share = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0, le=2**62)]


class Config(BaseModel):
    """``config.json``: what decides the numbers of a run.

    Attributes:
        experiment: what is trained.
        data_sha256: the fingerprint of its data.
        weights_sha256: the fingerprint of the file of its initial weights, if any.
        world: processes that share the work.
        images: how its images, or windows of a series, become the network's input;
            None in runs of older versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    experiment: Experiment
    data_sha256: str
    weights_sha256: str | None = None
    world: int = Field(default=1, ge=1)
    images: StoredInputs | None = None


class Start(BaseModel):
    """A line of ``environment.jsonl``."""

    command: list[str] | None = None


class _Numbers(BaseModel):
    """Finite numbers, or None for those that could not be measured.

    A test of a classifier has an error, and one of a forecaster a mean squared error.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    test_mse: Annotated[float, Field(ge=0)] | None = None
    test_error: Share | None
    gradient_examples: Count
    top5_error: Share | None = None
    error_sharpness: float | None = None
    sharpness: float | None = None
    lambda_max: float | None = None
    lambda_ratio: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_a_forecast(cls, values: Any) -> Any:
        if isinstance(values, dict) and "test_mse" in values:
            return {"test_error": None, **values}
        return values

    @field_validator("test_error")
    @classmethod
    def _known(cls, error: float | None, info: ValidationInfo) -> float | None:
        if error is None and info.data.get("test_mse") is None:
            raise ValueError("Input should be a valid number")
        return error


class Epoch(_Numbers):
    """A line of ``metrics.jsonl``."""

    epoch: Annotated[int, Field(ge=1)]
    step: Count
    seconds: float | None = None


class Result(_Numbers):
    """``result.json``."""

    seconds: Annotated[float, Field(ge=0)]
    last_error: Share | None = None
    train_error: Share | None = None
