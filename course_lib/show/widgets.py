"""Interactive views: `course_lib.show.views` with controls beside them, on what ipywidgets 7 and 8 share.

Each function returns an `ipywidgets.interactive`, whose `result` is the `View` that it shows now. What is impossible
is answered by a sentence in place of the picture. Where no kernel runs (on GitHub, in print) a widget shows nothing:
every lesson has a figure of the same view beside it.
"""

import base64
import io
from collections.abc import Callable, Sequence
from html import escape

from ipywidgets import Checkbox, Dropdown, FloatSlider, IntSlider, interactive
from torch import Tensor

from course_lib.errors import UserError
from course_lib.grid import SKIPS, NestedUNet
from course_lib.show import views
from course_lib.show.diagram import NAMES, Node
from course_lib.show.views.grids import NUMBERS
from course_lib.show.views.losses import LOSSES, RADIUS, SIDE
from course_lib.show.views.view import Spot, View

WIRINGS = [(NAMES[wiring], wiring) for wiring in SKIPS]
ROOM = {"style": {"description_width": "12em"}, "layout": {"width": "34em", "max_width": "100%"}}


def grid_explorer(wiring: str = "unet++", depth: int = 4) -> interactive:
    """The grid of any wiring, depth and width, pruned or whole; point at a node, or choose one, for its formula."""

    def view(wiring: str, depth: int, width: int, deep_supervision: bool, level: int, node: Node, number: str) -> View:
        net = views.design(wiring, depth, width=width, deep_supervision=deep_supervision, level=level)
        return views.grid_view(net, node, number=number)

    return _explorer(
        view,
        wiring=_choice("wiring", WIRINGS, wiring),
        depth=_whole("depth", 1, 4, depth),
        width=_choice("channels of row 0", [8, 16, 32, 64], 32),
        deep_supervision=Checkbox(description="deep supervision", value=wiring != "unet", **ROOM),
        level=_choice("pruned to level", [("not pruned", 0), ("1", 1), ("2", 2), ("3", 3)], 0),
        node=_choice("node", _nodes(4), (0, depth) if wiring == "unet" else (0, 1)),
        number=_choice("number at a node", list(NUMBERS), "MACs"),
    )


def prediction_explorer(net: NestedUNet, images: Tensor, *, masks: Tensor) -> interactive:
    """What a trained net finds in some images, at any threshold, by any head; and the time of the pruned net.

    Args:
        images: uint8 (N, C, H, W); masks: (N, 1, H, W), {0, 1}. A dozen are plenty: all are predicted at once.
    """
    found = views.Predictions(net, images, masks)
    return _explorer(
        found.view,
        image=_whole("image", 0, len(images) - 1, 0),
        threshold=FloatSlider(description="threshold", min=0, max=1, step=0.05, value=0.5, **ROOM),
        head=_choice("head", list(found.heads), next(iter(found.heads))),
    )


def feature_explorer(net: NestedUNet, image: Tensor) -> interactive:
    """The feature maps of one image (C, H, W): all nodes with one channel each, or one node with many channels."""
    found = views.Features(net, image)

    def view(node: Node | str, channel: int) -> View:  # a list of choices shows nothing for the choice None
        return found.view(None if node == "all" else node, channel)

    nodes = [("all", "all")] + [(f"x{i},{j}", (i, j)) for i, j in net.nodes]
    return _explorer(
        view,
        node=_choice("node", nodes, "all"),
        channel=_whole("channel (0: the mean)", 0, net.config["widths"][0], 0),
    )


def gradient_explorer(images: Tensor, masks: Tensor, *, seed: int = 0) -> interactive:
    """How much gradient reaches each node of an untrained net, for every wiring and loss, with one head or all.

    Args:
        images: (N, 3, H, W), sides multiples of 16; masks: (N, 1, H, W). Four are enough.
    """

    def view(wiring: str, every_head: bool, loss: str) -> View:
        return views.gradient_view(images, masks, wiring=wiring, every_head=every_head, loss=loss, seed=seed)

    return _explorer(
        view,
        wiring=_choice("wiring", WIRINGS, "unet-e"),
        every_head=Checkbox(description="a loss on every head", value=False, **ROOM),
        loss=_choice("loss", list(LOSSES), "BCE/2 + Dice"),
    )


def loss_playground() -> interactive:
    """Move, grow and blur a predicted disk against a true one, and watch the losses and their gradients."""
    return _explorer(
        views.loss_view,
        shift=FloatSlider(description="shift, pixels", min=-SIDE / 2, max=SIDE / 2, step=1, value=6, **ROOM),
        radius=FloatSlider(description="radius, pixels", min=2, max=SIDE / 2, step=1, value=RADIUS, **ROOM),
        blur=FloatSlider(description="blur, pixels", min=0.25, max=6, step=0.25, value=1, **ROOM),
        loss=_choice("gradient of", list(LOSSES), "Dice"),
    )


def receptive_field_explorer(image: Tensor, *, depth: int = 2) -> interactive:
    """What a pixel of a node can depend on, as a frame in one square image (C, H, W)."""

    def view(wiring: str, depth: int, node: Node, row: int, column: int) -> View:
        return views.receptive_view(image, node, wiring=wiring, depth=depth, row=row, column=column)

    height, width = image.shape[1:]
    return _explorer(
        view,
        wiring=_choice("wiring", WIRINGS, "unet++"),
        depth=_whole("depth", 1, 4, depth),
        node=_choice("node", _nodes(4), (0, depth)),
        row=_whole("row", 0, height - 1, height // 2),
        column=_whole("column", 0, width - 1, width // 2),
    )


def as_html(view: View) -> str:
    """A view as HTML: the figure with its alt text, what its spots say when pointed at, and its lines."""
    png = io.BytesIO()
    view.figure.savefig(png, format="png", dpi=100, metadata={"Software": None})
    data = base64.b64encode(png.getvalue()).decode()
    picture = f'<img alt="{escape(view.alt)}" style="max-width:100%" src="data:image/png;base64,{data}">'
    spots = "".join(_spot(spot) for spot in view.spots)
    frame = f'<div style="position:relative;display:inline-block;max-width:100%;line-height:0">{picture}{spots}</div>'
    return f'{frame}<pre style="white-space:pre-wrap;margin:0.3em 0">{escape(view.text)}</pre>'


def _spot(spot: Spot) -> str:
    place = zip(("left", "top", "width", "height"), spot[:4], strict=True)
    style = "".join(f"{side}:{100 * share:.2f}%;" for side, share in place)
    return f'<span title="{escape(spot.text)}" style="position:absolute;{style}border-radius:50%;cursor:help"></span>'


def _explorer(view: Callable[..., View], **controls) -> interactive:
    """Controls above a view, each of them an argument of `view`; a UserError is shown as its sentence."""

    def draw(**values) -> View | None:
        from IPython.display import HTML, display

        try:
            found = view(**values)
        except UserError as error:
            display(HTML(f"<p>{escape(str(error))}</p>"))
            return None
        display(HTML(as_html(found)))
        return found

    return interactive(draw, **controls)


def _choice(description: str, options: Sequence, value: object) -> Dropdown:
    return Dropdown(description=description, options=options, value=value, **ROOM)


def _whole(description: str, low: int, high: int, value: int) -> IntSlider:
    return IntSlider(description=description, min=low, max=high, value=value, **ROOM)


def _nodes(depth: int) -> list[tuple[str, Node]]:
    return [(f"x{i},{j}", (i, j)) for i in range(depth + 1) for j in range(depth + 1 - i)]
