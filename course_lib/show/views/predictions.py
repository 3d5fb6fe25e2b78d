"""A trained net at work: masks, mistakes, thresholds, heads."""

from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib import measure, metrics, show
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict import Head, as_input, probabilities
from course_lib.show.views.view import View


class Predictions:
    """The probability maps of all heads for some images, and the time of each pruned net: computed once, shown often.

    Attributes:
        heads: a name -> the head as `probability` calls it; "mean" and one for each level, or the only head.
    """

    def __init__(self, net: NestedUNet, images: Tensor, masks: Tensor):
        """Images uint8 (N, C, H, W) and masks (N, 1, H, W), {0, 1}; a dozen are plenty."""
        if len(images) != len(masks) or len(images) == 0:
            raise UserError(
                f"{len(images)} images and {len(masks)} masks: give one mask for each image, and one or more"
            )
        self.images, self.masks = images.cpu(), masks.cpu()
        if len(net.heads) > 1:
            self.heads: dict[str, Head] = {"mean": "mean"} | {f"L{j}": j for j in net.heads.values()}
        else:
            self.heads = {"the only head": 1}
        self.maps = {name: probabilities(net, images, head=head) for name, head in self.heads.items()}
        one = as_input(images[:1]).to(next(net.parameters()).device)
        self.ms = {name: _milliseconds(net, head, one) for name, head in self.heads.items()}

    def view(self, image: int = 0, threshold: float = 0.5, *, head: str = "") -> View:
        """One image: the outline, the two kinds of mistakes, and the probability map that was cut at `threshold`.

        `head` is a key of `heads`, "" the first of them.

        Raises:
            UserError: no such image or head.
        """
        head = head or next(iter(self.heads))
        self._check(image, head)
        p, true = self.maps[head][image : image + 1], self.masks[image : image + 1]
        mask = p > threshold
        figure, axes = show.canvas(3, height=2.5)
        show.draw_overlay(axes[0], self.images[image], true[0], mask[0])
        show.draw_errors(axes[1], self.images[image], true[0], mask[0])
        axes[2].imshow(p[0, 0].numpy(), cmap="gray", vmin=0, vmax=1)
        for axis, title in zip(axes, ("true and predicted", "missed and invented", "probability map"), strict=True):
            axis.set_title(title, fontsize=9)
            axis.axis("off")
        counts = metrics.count(mask, true)
        score, missed, invented = metrics.iou(counts).item(), int(counts.fn), int(counts.fp)
        text = f"image {image}, head {head}, p > {threshold:.2f}: IoU {score:.3f}, missed {missed}, invented {invented}"
        time = f"{self.ms[head]:.1f} ms an image for the net cut to what this head needs, measured on this machine"
        alt = f"Image {image} with outlines, its mistakes and its probability map; IoU {score:.2f}."
        return View(figure, alt, f"{text}\n{time}")

    def heads_and_thresholds(self, image: int = 0, thresholds: Sequence[float] = (0.1, 0.5, 0.9)) -> View:
        """The mistakes in one image for every head and some thresholds: the prediction explorer in print."""
        self._check(image)
        figure, axes = show.canvas(len(thresholds), rows=len(self.heads), width=5, height=1.65 * len(self.heads) + 0.1)
        true, panels, lines = self.masks[image : image + 1], iter(axes), []
        for head, maps in self.maps.items():
            scores = []
            for threshold in thresholds:
                mask, axis = maps[image : image + 1] > threshold, next(panels)
                show.draw_errors(axis, self.images[image], true[0], mask[0])
                scores.append(metrics.iou(metrics.count(mask, true)).item())
                axis.set_title(f"{head}, p > {threshold:g}: {scores[-1]:.2f}", fontsize=9)
                axis.axis("off")
            lines.append(f"{head}: IoU " + ", ".join(f"{score:.3f}" for score in scores))
        alt = "Mistakes in one image, a row a head, a column a threshold: a high threshold misses, a low one invents."
        return View(figure, alt, "\n".join(lines))

    def _check(self, image: int, head: str = "") -> None:
        if not 0 <= image < len(self.images):
            raise UserError(f"image {image} is not there: choose 0 to {len(self.images) - 1}")
        if head and head not in self.heads:
            raise UserError(f"head {head!r} is not there: choose from {', '.join(self.heads)}")


def _milliseconds(net: NestedUNet, head: Head, image: Tensor) -> float:
    small = net.prune(head) if head in range(1, net.depth) and len(net.heads) > 1 else net
    training = net.training
    try:
        small.eval()
        with torch.inference_mode():
            return measure.median_ms(lambda: small(image), repeats=5)
    finally:
        net.train(training)
