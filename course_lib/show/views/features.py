"""What every node of a net computes for one image."""

import numpy as np
import torch
from torch import Tensor

from course_lib import show
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict import as_input
from course_lib.show import diagram
from course_lib.show.diagram import NAMES, Node
from course_lib.show.views.view import View, check_node, spots


class Features:
    """The output of every node for one image, computed once. `net` may be any `NestedUNet`, trained or not."""

    def __init__(self, net: NestedUNet, image: Tensor):
        """One image (C, H, W), uint8, or prepared by `as_input`.

        Raises:
            UserError: an image that the net cannot take.
        """
        if image.ndim != 3:
            raise UserError(f"the image has shape {tuple(image.shape)}: give one image as (channels, height, width)")
        self.net, self.maps = net, {}
        training, device = net.training, next(net.parameters()).device
        hooks = [net.node(*node).register_forward_hook(self._keep(node)) for node in net.nodes]
        try:
            with torch.inference_mode():
                net.eval()(as_input(image[None]).to(device))
        finally:
            net.train(training)
            for hook in hooks:
                hook.remove()

    def view(self, node: Node | None = None, channel: int = 0) -> View:
        """All nodes, each with one channel (0: the mean of its channels); or the first 16 channels of one node.

        Every picture is scaled by itself, black its least and white its largest value.

        Raises:
            UserError: no such node.
        """
        if node is not None:
            check_node(self.net, node)
            return self._node(node)
        pictures = {n: _scaled(self._channel(n, channel)) for n in self.net.nodes}
        which = f"channel {channel}, counted round" if channel else "the mean of the channels"
        name = NAMES[self.net.config["wiring"]]
        figure = diagram.grid(self.net, title=f"{name}: {which}", pictures=pictures)
        silent = [f"x{i},{j}" for i, j in self.net.nodes if not self._channel((i, j), channel).any()]
        note = f"0 everywhere: {' '.join(silent)}" if silent else "no node shows 0 everywhere"
        about = {n: f"{diagram.formula(self.net, n)}\n{self._shape(n)}" for n in self.net.nodes}
        return View(figure, f"Feature maps of {name}, each in the place of its node.", note, spots(figure, about))

    def _node(self, node: Node) -> View:
        maps = self.maps[node][:16]
        figure, axes = show.canvas(8, rows=-(-len(maps) // 8), height=0.95 * -(-len(maps) // 8) + 0.2)
        for axis in axes:
            axis.axis("off")
        for n, (axis, picture) in enumerate(zip(axes, maps, strict=False), start=1):
            axis.imshow(_scaled(picture), cmap="gray", vmin=0, vmax=1)
            axis.set_title(f"{n}", fontsize=9)
        silent = int((~self.maps[node].any(axis=(1, 2))).sum())
        text = f"{diagram.formula(self.net, node)}\n{self._shape(node)}; channels that are 0 everywhere: {silent}"
        return View(figure, f"The first {len(maps)} feature maps of x{node[0]},{node[1]}.", text)

    def _keep(self, node: Node):
        def hook(block, inputs, output):
            self.maps[node] = output[0].float().cpu().numpy()

        return hook

    def _channel(self, node: Node, channel: int) -> np.ndarray:
        maps = self.maps[node]
        return maps[(channel - 1) % len(maps)] if channel else maps.mean(axis=0)

    def _shape(self, node: Node) -> str:
        channels, height, width = self.maps[node].shape
        return f"{channels} channels of {height}x{width}"


def _scaled(picture: np.ndarray) -> np.ndarray:
    """To 0..1; what is alike everywhere becomes black."""
    low, high = picture.min(), picture.max()
    return (picture - low) / (high - low) if high > low else np.zeros_like(picture)
