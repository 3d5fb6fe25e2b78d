"""The networks that came after UNet++ or stand beside it, behind the interface of `course_lib.grid.NestedUNet`::

    net(image)[-1]            logits (N, classes, H, W) of the image's own size
    net.depth                 H and W must be divisible by 2**depth
    type(net)(**net.config)   the same net again, with new weights

So one loop over `RELATIVES` compares them all on equal terms.
"""

from torch import nn

from course_lib.relatives.attention import AttentionUNetPlusPlus, Gate
from course_lib.relatives.dense import DenseBlock, DenseUNetPlusPlus
from course_lib.relatives.original import OriginalUNet, border_weights
from course_lib.relatives.refinenet import Fusion, Pooling, RefineNet, ResidualUnit
from course_lib.relatives.unet3plus import UNet3Plus

RELATIVES: dict[str, type[nn.Module]] = {
    "attention-unet++": AttentionUNetPlusPlus,
    "unet3+": UNet3Plus,
    "refinenet": RefineNet,
    "dense-unet++": DenseUNetPlusPlus,
    "original-unet": OriginalUNet,
}

__all__ = [
    "RELATIVES",
    "AttentionUNetPlusPlus",
    "DenseBlock",
    "DenseUNetPlusPlus",
    "Fusion",
    "Gate",
    "OriginalUNet",
    "Pooling",
    "RefineNet",
    "ResidualUnit",
    "UNet3Plus",
    "border_weights",
]
