"""The closed form in a file of a run, and the section `closed_form` of its card."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval, MinLen
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.recsys.card import AGAIN, CARD, read_section
from fedrec.recsys.closed_form.config import Decay
from fedrec.recsys.closed_form.contexts import KernelStack
from fedrec.recsys.closed_form.features import FourierFeatures, Whitening
from fedrec.recsys.closed_form.fusion import Fusion
from fedrec.recsys.closed_form.model import ClosedForm, EventMap, LinearModel, NewItemMap
from fedrec.recsys.tensors import check_shapes

FILE, SECTION = "closed_form.safetensors", "closed_form"
"""The file of a run, and the section of its card and of the card's fingerprints."""


@dataclass(frozen=True)
class Description:
    """The section of a card that describes a closed form."""

    features: Literal["text", "ids"]
    feature_width: Annotated[int, Ge(0)]  # random features of a text; 0 for ids
    rank: Annotated[int, Ge(0)]  # 0 if nothing was learned: then the towers answer alone
    decays: Annotated[tuple[Decay, ...], MinLen(1)]
    reverse: Annotated[float, Interval(ge=0, le=1)]
    share: Annotated[float, Interval(ge=0, le=1)]
    new_items: bool = False  # whether the file tells the candidate vector of a new item; earlier versions did not

    @classmethod
    def of(cls, closed_form: ClosedForm) -> "Description":
        """Describe a closed form."""
        stack, new = closed_form.model.stack, closed_form.new_items
        kind, width = ("text", len(new.events.to_events)) if new and new.events else ("ids", 0)
        share = closed_form.fusion.share
        return cls(kind, width, closed_form.rank, stack.decays, stack.reverse, share, new is not None)

    def shapes(self, items: int, width: int) -> dict[str, tuple[int, ...]]:
        """Return the tensors that the file must hold for N items and embeddings of a width: name → shape."""
        features, rank, of_event = self.feature_width, self.rank, len(self.decays) * self.rank
        shapes: dict[str, tuple[int, ...]] = {
            "events": (items, of_event),
            "candidates": (items, rank),
            "covariance.towers": (width, width),
            "covariance.closed_form": (rank, rank),
        }
        if self.new_items:
            shapes |= {
                "whitening.mean": (width,),
                "whitening.root": (width, width),
                "map.to_candidates": (width, rank),
                "map.mean": (rank,),
            }
        if self.features == "text":
            shapes |= {
                "features.frequencies": (width, features),
                "features.phases": (features,),
                "features.mean": (features,),
                "map.to_events": (features, of_event),
            }
        return shapes


NAMES = tuple(field.name for field in fields(Description))
"""The entries of the section that an artifact is read by; others say how it came to be."""


def describe(closed_form: ClosedForm) -> dict[str, Any]:
    """Return the section's entries of a closed form."""
    return asdict(Description.of(closed_form))


def tensors_of(closed_form: ClosedForm) -> dict[str, Tensor]:
    """Return the tensors of the file: name → float32."""
    model, fusion, new = closed_form.model, closed_form.fusion, closed_form.new_items
    tensors = {
        "events": model.events,
        "candidates": model.candidates,
        "covariance.towers": fusion.towers,
        "covariance.closed_form": fusion.closed_form,
    }
    if new is not None:
        tensors |= {
            "whitening.mean": new.whitening.mean,
            "whitening.root": new.whitening.root,
            "map.to_candidates": new.to_candidates,
            "map.mean": new.mean,
        }
    if new is not None and new.events is not None:
        tensors |= {
            "features.frequencies": new.events.features.frequencies,
            "features.phases": new.events.features.phases,
            "features.mean": new.events.features.mean,
            "map.to_events": new.events.to_events,
        }
    return tensors


def closed_form_of(
    section: dict[str, Any], tensors: dict[str, Tensor], item_vectors: Tensor, folder: Path
) -> ClosedForm:
    """Build a closed form from the card's section and the tensors of the file, beside the towers' item vectors (N, E).

    Raises `InputError` if the section is damaged, or the tensors have other names or shapes than it states.
    """
    try:
        described = read_section(Description, {name: section[name] for name in NAMES if name in section}, SECTION)
    except InputError as error:
        raise InputError(f"{folder / CARD}: {error}; {AGAIN}") from error
    if described.features == "text" and not described.new_items:
        raise InputError(f"{folder} has a closed form over texts of an earlier version; train again")
    check_shapes(tensors, described.shapes(*item_vectors.shape), "closed form", folder)
    model = LinearModel(KernelStack(described.decays, described.reverse), tensors["events"], tensors["candidates"])
    fusion = Fusion(described.share, tensors["covariance.towers"], tensors["covariance.closed_form"])
    if not described.new_items:
        return ClosedForm(model, fusion, None)
    of_texts = described.features == "text"
    events = EventMap(feature_map_of(tensors), tensors["map.to_events"]) if of_texts else None
    new = NewItemMap(_whitening_of(tensors), tensors["map.to_candidates"], tensors["map.mean"], events)
    return ClosedForm(model, fusion, new)


def feature_map_of(tensors: Mapping[str, Tensor]) -> FourierFeatures:
    """Build the features of texts from the tensors of the file."""
    frequencies, phases, mean = (tensors[f"features.{name}"] for name in ("frequencies", "phases", "mean"))
    return FourierFeatures(_whitening_of(tensors), frequencies, phases, mean)


def _whitening_of(tensors: Mapping[str, Tensor]) -> Whitening:
    return Whitening(tensors["whitening.mean"], tensors["whitening.root"])
