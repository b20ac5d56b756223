"""The HTTP API's requests and answers, by subject; the command line, the client and the engine use them, too."""

from fedrec.serving.schema.answers import Answer, Answers, Item, Weight
from fedrec.serving.schema.experiment import ArmResult, Difference, ExperimentResult
from fedrec.serving.schema.feedback import (
    Everybody,
    Feedback,
    NewToken,
    Remembered,
    StoredFeedback,
    Token,
    UserData,
)
from fedrec.serving.schema.fields import ItemId, SentId, UserId
from fedrec.serving.schema.items import KnownItem, NewItem
from fedrec.serving.schema.questions import MAX_K, MAX_OFFSET, Question, Questions, Range
from fedrec.serving.schema.status import FieldError, Health, ModelInfo, Models, Problem

__all__ = [
    "MAX_K",
    "MAX_OFFSET",
    "Answer",
    "Answers",
    "ArmResult",
    "Difference",
    "Everybody",
    "ExperimentResult",
    "Feedback",
    "FieldError",
    "Health",
    "Item",
    "ItemId",
    "KnownItem",
    "ModelInfo",
    "Models",
    "NewItem",
    "NewToken",
    "Problem",
    "Question",
    "Questions",
    "Range",
    "Remembered",
    "SentId",
    "StoredFeedback",
    "Token",
    "UserData",
    "UserId",
    "Weight",
]
