"""The result of an A/B test so far."""

from pydantic import BaseModel, Field


class ArmResult(BaseModel):
    """What one arm has shown, and how much of it was liked."""

    arm: str
    model_version: str = Field(description="of the model that answers now")
    shown: int = Field(description="answers")
    liked: int = Field(description="answers of which an item was liked")


class Difference(BaseModel):
    """How far the share of liked answers is higher in the second arm than in the first."""

    estimate: float
    low: float
    high: float
    confidence: float


class ExperimentResult(BaseModel):
    """Counts by arm, since the experiment of this name began."""

    experiment: str
    share: float = Field(description="of the callers, for the second arm")
    arms: list[ArmResult]
    difference: Difference | None = Field(description="null until both arms have answered")
