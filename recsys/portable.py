"""The user's side of a recommender as one module of plain tensor operations, for formats that a device can run.

A device that holds the item vectors computes its user vector from them, and its scores by inner products: its history
never leaves it. Shapes: B histories, L events, E width of the towers, r and Kr of the closed form, as in `ItemVectors`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.recsys.closed_form.model import ClosedForm
from fedrec.recsys.exposure_bound import ExposureBound
from fedrec.recsys.model.inference import InferenceModel


class PortableUserModel(nn.Module):
    """User vectors of right-aligned histories, as `Recommender.user_vectors` computes them, up to rounding.

    Histories may be of any length; older events than a part of the model reads do not count for it. An empty history
    gets zeros.
    """

    def __init__(
        self, towers: InferenceModel, closed_form: ClosedForm | None, bound: ExposureBound | None = None
    ) -> None:
        super().__init__()
        self._towers, self._bound = towers, bound
        self._closed_form = None if closed_form is None else PortableClosedForm(closed_form)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Compute unit user vectors: (B, L, E or E + Kr), (B, L) of bool → (B, E or E + r), + 1 with biases."""
        users = self._blend(vectors, mask)
        if self._bound:
            return self._bound.extend_users(users)
        return F.normalize(users, dim=-1) if self._closed_form else users

    def _blend(self, vectors: Tensor, mask: Tensor) -> Tensor:
        ages = mask.shape[1] - 1 - torch.arange(mask.shape[1])
        read = mask & (ages < self._towers.length)
        if self._closed_form is None:
            return self._towers.traceable_user_vectors(vectors, read) * mask[:, -1:]
        width = self._closed_form.tower_width
        towers = self._towers.traceable_user_vectors(vectors[..., :width], read) * mask[:, -1:]
        return self._closed_form(towers, vectors[..., width:], mask, ages)


class PortableClosedForm(nn.Module):
    """The closed form's half of a user vector, and its fusion with the towers'."""

    def __init__(self, closed_form: ClosedForm) -> None:
        super().__init__()
        stack, fusion = closed_form.model.stack, closed_form.fusion
        weights = torch.zeros(len(stack), stack.reach + 1)  # by age; 0 for all ages beyond the reach
        for row, kernel in zip(weights, stack.kernels, strict=True):
            row[: kernel.reach] = torch.from_numpy(kernel.weights)
        self._weights, self._share = weights, fusion.share
        self._of_towers, self._of_closed_form = fusion.towers, fusion.closed_form

    @property
    def tower_width(self) -> int:
        """The width E of the towers' vectors."""
        return len(self._of_towers)

    def forward(self, towers: Tensor, events: Tensor, mask: Tensor, ages: Tensor) -> Tensor:
        """Join the towers' user vectors with those of the event vectors: (B, E), (B, L, Kr), (B, L), (L,) → (B, E + r).

        The towers score alone if the closed form knows no event.
        """
        weights = self._weights[:, ages.clamp(max=self._weights.shape[1] - 1)]  # (K, L)
        by_decay = events.unflatten(-1, (len(self._weights), -1)) * mask[..., None, None]  # (B, L, K, r)
        ours = torch.einsum("kl,blkr->br", weights, by_decay)
        share = self._share * (ours != 0).any(-1, keepdim=True)
        halves = _standardise(towers, self._of_towers) * (1 - share), _standardise(ours, self._of_closed_form) * share
        return torch.cat(halves, dim=-1)


def _standardise(users: Tensor, spread: Tensor) -> Tensor:
    """Divide user vectors by the standard deviation of their scores, as `fusion.standardise` does: (B, E) → (B, E)."""
    variances = ((users @ spread) * users).sum(-1, keepdim=True)
    return users / variances.sqrt().clamp(min=torch.finfo(users.dtype).tiny)
