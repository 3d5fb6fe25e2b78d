"""How much gradient reaches each node, for every wiring and loss."""

import torch
from torch import Tensor

from course_lib import measure
from course_lib.grid import NestedUNet
from course_lib.predict import as_input
from course_lib.show import diagram
from course_lib.show.diagram import NAMES
from course_lib.show.views.losses import LOSSES
from course_lib.show.views.view import View, spots


def gradient_view(
    images: Tensor, masks: Tensor, *, wiring: str = "unet-e", every_head: bool = False, loss: str = "BCE/2 + Dice",
    seed: int = 0,
) -> View:  # fmt: skip
    """How much gradient reaches each node of an untrained net of depth 4 and widths 4 to 8.

    Images (N, 3, H, W), uint8 or prepared, sides multiples of 16; masks (N, 1, H, W).

    Raises:
        UserError: what `NestedUNet` refuses, such as a loss on every head of the plain U-Net.
    """
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        torch.default_generator.manual_seed(seed)  # not the GPU's, which is not saved
        net = NestedUNet(widths=(4, 5, 6, 7, 8), wiring=wiring, deep_supervision=every_head).train()
        sizes = measure.node_gradients(net, as_input(images), masks.float(), loss=LOSSES[loss])
    silent = [f"x{i},{j}" for (i, j), size in sizes.items() if size == 0]
    heads = "a loss on every head" if every_head else "one loss, on the last head"
    title = f"{NAMES[wiring]}: {loss}, {heads}"
    figure = diagram.grid(net, title=title, values={n: 1000 * size for n, size in sizes.items()},
                          label="gradient, 1e-3")  # fmt: skip
    alt = f"Gradient at each node of {title}; {len(silent)} of {len(sizes)} nodes get none."
    text = f"{len(silent)} of {len(sizes)} nodes get no gradient" + (f": {' '.join(silent)}" if silent else "")
    about = {node: f"x{node[0]},{node[1]}: {size:.2g}" for node, size in sizes.items()}
    return View(figure, alt, text, spots(figure, about))
