"""Whether two nets are the same."""

import torch
from torch import nn


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two nets hold the same weights, bit for bit."""
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(map(torch.equal, ours.values(), theirs.values()))
