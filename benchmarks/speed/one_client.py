"""The work of one client by itself, as simulators commonly do it: no client's pass is shared with another's."""

import torch

from fedrec.data.randomness import DrawKey
from fedrec.data.shard import Cohort
from fedrec.federation.clipping import norms
from fedrec.recsys.model.lora import Adapter, stacked
from fedrec.recsys.training.local_training import LocalTrainer


def train_alone(
    trainer: LocalTrainer, adapter: Adapter, client: Cohort, key: DrawKey, clip: float
) -> tuple[Adapter, float]:
    """Take one gradient step on a cohort of one client, and clip its change to L2 norm `clip`.

    Returns the change, without a client axis, and the loss before the step.
    """
    stack = {name: tensor.requires_grad_() for name, tensor in stacked(adapter, 1).items()}
    loss = trainer.client_losses(stack, client, key).sum()
    gradients = torch.autograd.grad(loss, list(stack.values()))
    change = {name: -trainer.config.local_rate * g for name, g in zip(stack, gradients, strict=True)}
    factor = clip / max(clip, float(norms(change)))
    return {name: factor * tensor[0] for name, tensor in change.items()}, float(loss.detach())
