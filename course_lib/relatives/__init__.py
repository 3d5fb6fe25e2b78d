"""Which networks came after UNet++ or stand beside it? One loop over `RELATIVES` compares them on equal terms:
each has the interface of `course_lib.grid.NestedUNet`::

    net(image)[-1]            logits (N, classes, H, W) of the image's own size
    net.depth                 H and W must be divisible by 2**depth
    type(net)(**net.config)   the same net again, with new weights
"""

from torch import nn

from course_lib.relatives.nets import AttentionUNetPlusPlus, DenseBlock, DenseUNetPlusPlus, Gate, RefineNet, UNet3Plus
from course_lib.relatives.original import OriginalUNet, border_weights

RELATIVES: dict[str, type[nn.Module]] = {
    "attention-unet++": AttentionUNetPlusPlus,
    "unet3+": UNet3Plus,
    "refinenet": RefineNet,
    "dense-unet++": DenseUNetPlusPlus,
    "original-unet": OriginalUNet,
}

__all__ = [
    "RELATIVES", "AttentionUNetPlusPlus", "DenseBlock", "DenseUNetPlusPlus", "Gate", "OriginalUNet", "RefineNet",
    "UNet3Plus", "border_weights",
]  # fmt: skip
