"""A net at work on images: what its nodes compute, and what its heads predict."""

import copy
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import measure, metrics, show
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict import Head, as_input, probabilities
from course_lib.show import diagram


class Features:
    """`maps`, the output of every node for one image: node -> float32 (channels, h, w). Computed once, shown often.

    The image is (C, H, W), uint8 or prepared by `as_input`. Raises UserError: the net cannot take it.
    """

    def __init__(self, net: NestedUNet, image: Tensor):
        if image.ndim != 3:
            raise UserError(f"the image has shape {tuple(image.shape)}: give one image as (channels, height, width)")
        self.net, self.maps = net, {}
        twin = copy.deepcopy(net).eval()  # whose mode and hooks are nobody's concern
        for node in net.nodes:
            twin.node(*node).register_forward_hook(partial(self._keep, node))
        with torch.inference_mode():
            twin(as_input(image[None]).to(next(net.parameters()).device))

    def view(self, node: diagram.Node | None = None, channel: int = 0) -> show.View:
        """All nodes, each with one channel (0: the mean of its channels); or the first 16 channels of one node.

        Every picture is scaled by itself, black its least and white its largest value. Raises UserError: no such node.
        """
        if node is not None:
            diagram.check_node(self.net, node)
            return self._node(node)
        maps = {n: m[(channel - 1) % len(m)] if channel else m.mean(axis=0) for n, m in self.maps.items()}
        which = f"channel {channel}, counted round" if channel else "the mean of the channels"
        name = show.NAMES[self.net.config["wiring"]]
        figure = diagram.grid(self.net, title=f"{name}: {which}", pictures={n: _scaled(m) for n, m in maps.items()})
        silent = " ".join(diagram.name(n) for n, m in maps.items() if not m.any())
        note = f"0 everywhere: {silent}" if silent else "no node shows 0 everywhere"
        spots = diagram.spots(figure, {n: self._sentence(n) for n in maps})
        return show.View(figure, f"Feature maps of {name}, each in the place of its node.", note, spots)

    def _node(self, node: diagram.Node) -> show.View:
        maps = self.maps[node][:16]
        rows = -(-len(maps) // 8)
        figure, axes = show.canvas(8, rows=rows, height=0.95 * rows + 0.2)
        for n, axis in enumerate(axes):
            show.bare(axis, f"{n + 1}" if n < len(maps) else "")
        for axis, picture in zip(axes, maps, strict=False):
            axis.imshow(_scaled(picture), cmap="gray", vmin=0, vmax=1)
        silent = int((~self.maps[node].any(axis=(1, 2))).sum())
        text = f"{self._sentence(node)}; channels that are 0 everywhere: {silent}"
        return show.View(figure, f"The first {len(maps)} feature maps of {diagram.name(node)}.", text)

    def _keep(self, node: diagram.Node, block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.maps[node] = output[0].float().cpu().numpy()

    def _sentence(self, node: diagram.Node) -> str:
        channels, height, width = self.maps[node].shape
        return f"{diagram.formula(self.net, node)}\n{channels} channels of {height}x{width}"


class Predictions:
    """The probability maps of all heads for some images, and the time of each pruned net: computed once, shown often.

    Images uint8 (N, C, H, W) and masks (N, 1, H, W), {0, 1}. `heads` is a name -> the head as `probability` calls it;
    by the same names `maps` holds probabilities (N, 1, H, W), and `ms` milliseconds an image.
    Raises UserError: no image, or not one mask for each.
    """

    def __init__(self, net: NestedUNet, images: Tensor, masks: Tensor):
        if not len(images) == len(masks) > 0:
            counts = f"{len(images)} images and {len(masks)} masks"
            raise UserError(f"{counts}: give one mask for each image, and one or more")
        self.images, self.masks = images.cpu(), masks.cpu()
        several: dict[str, Head] = {"mean": "mean"} | {f"L{j}": j for j in net.heads.values()}
        self.heads = several if len(net.heads) > 1 else {"the only head": 1}
        self.maps = {name: probabilities(net, images, head=head) for name, head in self.heads.items()}
        one = as_input(images[:1]).to(next(net.parameters()).device)
        self.ms = {}
        for name, head in self.heads.items():
            whole = head == "mean" or not net.config["deep_supervision"]
            needed = (copy.deepcopy(net) if whole else net.prune(head)).eval()
            with torch.inference_mode():
                self.ms[name] = measure.median_ms(partial(needed, one), repeats=5)

    def view(self, image: int = 0, threshold: float = 0.5, *, head: str = "") -> show.View:
        """One image: the outline, the two kinds of mistakes, and the probability map that was cut at `threshold`.

        `head` is a key of `heads`, "" the first of them. Raises UserError: no such image or head.
        """
        head = head or next(iter(self.heads))
        self._check(image, head)
        p, true = self.maps[head][image], self.masks[image]
        mask = p > threshold
        figure, axes = show.canvas(3, height=2.5)
        show.draw_overlay(axes[0], self.images[image], true, mask)
        show.draw_errors(axes[1], self.images[image], true, mask)
        axes[2].imshow(p[0].numpy(), cmap="gray", vmin=0, vmax=1)
        for axis, title in zip(axes, ("true and predicted", "missed and invented", "probability map"), strict=True):
            show.bare(axis, title)
        counts = metrics.count(mask[None], true[None])
        score, missed, invented = metrics.iou(counts).item(), int(counts.fn), int(counts.fp)
        text = f"image {image}, head {head}, p > {threshold:.2f}: IoU {score:.3f}, missed {missed}, invented {invented}"
        time = f"{self.ms[head]:.1f} ms an image for the net cut to what this head needs, measured on this machine"
        alt = f"Image {image} with outlines, its mistakes and its probability map; IoU {score:.2f}."
        return show.View(figure, alt, f"{text}\n{time}")

    def heads_and_thresholds(self, image: int = 0, thresholds: Sequence[float] = (0.1, 0.5, 0.9)) -> show.View:
        """The mistakes in one image for every head and some thresholds: the prediction explorer in print."""
        self._check(image)
        figure, axes = show.canvas(len(thresholds), rows=len(self.heads), width=5, height=1.65 * len(self.heads) + 0.1)
        true, panels, lines = self.masks[image], iter(axes), []
        for head, maps in self.maps.items():
            scores = []
            for threshold in thresholds:
                mask, axis = maps[image] > threshold, next(panels)
                show.draw_errors(axis, self.images[image], true, mask)
                scores.append(metrics.iou(metrics.count(mask[None], true[None])).item())
                show.bare(axis, f"{head}, p > {threshold:g}: {scores[-1]:.2f}")
            lines.append(f"{head}: IoU " + ", ".join(f"{score:.3f}" for score in scores))
        alt = "Mistakes in one image, a row a head, a column a threshold: a high threshold misses, a low one invents."
        return show.View(figure, alt, "\n".join(lines))

    def _check(self, image: int, head: str = "") -> None:
        if not 0 <= image < len(self.images):
            raise UserError(f"image {image} is not there: choose 0 to {len(self.images) - 1}")
        if head and head not in self.heads:
            raise UserError(f"head {head!r} is not there: choose from {', '.join(self.heads)}")


def _scaled(picture: np.ndarray) -> np.ndarray:
    """To 0..1; what is alike everywhere becomes black."""
    low, high = picture.min(), picture.max()
    return (picture - low) / (high - low) if high > low else np.zeros_like(picture)
