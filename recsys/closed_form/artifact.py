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
from fedrec.recsys.closed_form.model import ClosedForm, LinearModel, TextMap
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

    @classmethod
    def of(cls, closed_form: ClosedForm) -> "Description":
        """Describe a closed form."""
        stack, text_map = closed_form.model.stack, closed_form.text_map
        kind, width = ("ids", 0) if text_map is None else ("text", len(text_map.to_events))
        return cls(kind, width, closed_form.rank, stack.decays, stack.reverse, closed_form.fusion.share)

    def shapes(self, items: int, width: int) -> dict[str, tuple[int, ...]]:
        """Return the tensors that the file must hold for N items and embeddings of a width: name → shape."""
        features, rank, of_event = self.feature_width, self.rank, len(self.decays) * self.rank
        shapes: dict[str, tuple[int, ...]] = {
            "events": (items, of_event),
            "candidates": (items, rank),
            "covariance.towers": (width, width),
            "covariance.closed_form": (rank, rank),
        }
        if self.features == "ids":
            return shapes
        return shapes | {
            "whitening.mean": (width,),
            "whitening.root": (width, width),
            "features.frequencies": (width, features),
            "features.phases": (features,),
            "features.mean": (features,),
            "map.to_events": (features, of_event),
            "map.to_candidates": (features, rank),
            "map.mean": (rank,),
        }


NAMES = tuple(field.name for field in fields(Description))
"""The entries of the section that an artifact is read by; others say how it came to be."""


def describe(closed_form: ClosedForm) -> dict[str, Any]:
    """Return the section's entries of a closed form."""
    return asdict(Description.of(closed_form))


def tensors_of(closed_form: ClosedForm) -> dict[str, Tensor]:
    """Return the tensors of the file: name → float32."""
    model, fusion, text_map = closed_form.model, closed_form.fusion, closed_form.text_map
    tensors = {
        "events": model.events,
        "candidates": model.candidates,
        "covariance.towers": fusion.towers,
        "covariance.closed_form": fusion.closed_form,
    }
    if text_map is None:
        return tensors
    return tensors | {
        "whitening.mean": text_map.features.whitening.mean,
        "whitening.root": text_map.features.whitening.root,
        "features.frequencies": text_map.features.frequencies,
        "features.phases": text_map.features.phases,
        "features.mean": text_map.features.mean,
        "map.to_events": text_map.to_events,
        "map.to_candidates": text_map.to_candidates,
        "map.mean": text_map.mean,
    }


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
    check_shapes(tensors, described.shapes(*item_vectors.shape), "closed form", folder)
    model = LinearModel(KernelStack(described.decays, described.reverse), tensors["events"], tensors["candidates"])
    fusion = Fusion(described.share, tensors["covariance.towers"], tensors["covariance.closed_form"])
    if described.features == "ids":
        return ClosedForm(model, fusion, None)
    text_map = TextMap(
        feature_map_of(tensors), tensors["map.to_events"], tensors["map.to_candidates"], tensors["map.mean"]
    )
    return ClosedForm(model, fusion, text_map)


def feature_map_of(tensors: Mapping[str, Tensor]) -> FourierFeatures:
    """Build the features of texts from the tensors of the file."""
    whitening = Whitening(tensors["whitening.mean"], tensors["whitening.root"])
    frequencies, phases, mean = (tensors[f"features.{name}"] for name in ("frequencies", "phases", "mean"))
    return FourierFeatures(whitening, frequencies, phases, mean)
