"""Interactive views: `course_lib.show.views` with controls above them, on what ipywidgets 7 and 8 share.

The picture is the value of an HTML widget. `interactive` would print it into an `Output`, for which a client that runs
notebooks has to answer in the middle of a cell, and plain papermill may then wait for ever. Where no kernel runs (on
GitHub, in print) a widget shows nothing: every lesson has a figure of the same view beside it.
"""

import base64
from collections.abc import Callable
from functools import partial
from html import escape

from ipywidgets import HTML, Checkbox, Dropdown, FloatSlider, IntSlider, VBox, Widget
from torch import Tensor

from course_lib.errors import UserError
from course_lib.grid import SKIPS, NestedUNet
from course_lib.show import diagram, views
from course_lib.show.figures import png
from course_lib.show.views.grids import NUMBERS
from course_lib.show.views.losses import LOSSES, RADIUS, SIDE

WIRINGS = [(diagram.NAMES[wiring], wiring) for wiring in SKIPS]
NODES = [(diagram.name((i, j)), (i, j)) for i in range(5) for j in range(5 - i)]
ROOM = {"style": {"description_width": "12em"}, "layout": {"width": "34em", "max_width": "100%"}}
_choice, _yes, _whole, _real = (partial(kind, **ROOM) for kind in (Dropdown, Checkbox, IntSlider, FloatSlider))


class Explorer(VBox):
    """`controls`, name -> widget, each an argument of the function that draws; and `page`, the HTML widget below them.

    `view` is the `View` that the page shows now; None while a sentence says why there is none.
    """

    def __init__(self, draw: Callable[..., views.View], **controls: Widget):
        self.draw, self.controls, self.page = draw, controls, HTML()
        super().__init__([*controls.values(), self.page])
        for control in controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, change: object = None) -> None:
        """Draw what the controls say, or write the sentence of the UserError that it raises."""
        self.view = None
        try:
            self.view = self.draw(**{name: control.value for name, control in self.controls.items()})
            self.page.value = as_html(self.view)
        except UserError as error:
            self.page.value = f"<p>{escape(str(error))}</p>"


def grid_explorer(wiring: str = "unet++", depth: int = 4) -> Explorer:
    """The grid of any wiring, depth and width, pruned or whole; point at a node, or choose one, for its formula."""
    return Explorer(
        lambda node, number, **of_net: views.grid_view(views.design(**of_net), node, number=number),
        wiring=_choice(description="wiring", options=WIRINGS, value=wiring),
        depth=_whole(description="depth", min=1, max=4, value=depth),
        width=_choice(description="channels of row 0", options=[8, 16, 32, 64], value=32),
        deep_supervision=_yes(description="deep supervision", value=wiring != "unet"),
        level=_choice(
            description="pruned to level", options=[("not pruned", 0), ("1", 1), ("2", 2), ("3", 3)], value=0
        ),
        node=_choice(description="node", options=NODES, value=(0, depth if wiring == "unet" else 1)),
        number=_choice(description="number at a node", options=list(NUMBERS), value="MACs"),
    )


def prediction_explorer(net: NestedUNet, images: Tensor, *, masks: Tensor) -> Explorer:
    """What a trained net predicts, at any threshold, by any head: `Predictions` of some images; a dozen are plenty."""
    predictions = views.Predictions(net, images, masks)
    return Explorer(
        predictions.view,
        image=_whole(description="image", min=0, max=len(images) - 1, value=0),
        threshold=_real(description="threshold", min=0, max=1, step=0.05, value=0.5),
        head=_choice(description="head", options=list(predictions.heads)),
    )


def feature_explorer(net: NestedUNet, image: Tensor) -> Explorer:
    """The feature maps of one image (C, H, W): all nodes with one channel each, or one node with many channels."""
    features = views.Features(net, image)
    nodes = [("all", "all"), *((diagram.name(node), node) for node in net.nodes)]  # a list shows nothing for None
    return Explorer(
        lambda node, channel: features.view(None if node == "all" else node, channel),
        node=_choice(description="node", options=nodes, value="all"),
        channel=_whole(description="channel (0: the mean)", min=0, max=net.config["widths"][0], value=0),
    )


def gradient_explorer(images: Tensor, masks: Tensor, *, seed: int = 0) -> Explorer:
    """`gradient_view` for every wiring and loss, with one head or all. Four images and their masks are enough."""
    return Explorer(
        partial(views.gradient_view, images, masks, seed=seed),
        wiring=_choice(description="wiring", options=WIRINGS, value="unet-e"),
        every_head=_yes(description="a loss on every head", value=False),
        loss=_choice(description="loss", options=list(LOSSES), value="BCE/2 + Dice"),
    )


def loss_playground() -> Explorer:
    """Move, grow and blur a predicted disk against a true one, and watch the losses and their gradients."""
    return Explorer(
        views.loss_view,
        shift=_real(description="shift, pixels", min=-SIDE / 2, max=SIDE / 2, step=1, value=6),
        radius=_real(description="radius, pixels", min=2, max=SIDE / 2, step=1, value=RADIUS),
        blur=_real(description="blur, pixels", min=0.25, max=6, step=0.25, value=1),
        loss=_choice(description="gradient of", options=list(LOSSES), value="Dice"),
    )


def receptive_field_explorer(image: Tensor, *, depth: int = 2) -> Explorer:
    """What a pixel of a node can depend on, as a frame in one square image (C, H, W)."""
    height, width = image.shape[1:]
    return Explorer(
        partial(views.receptive_view, image),
        wiring=_choice(description="wiring", options=WIRINGS, value="unet++"),
        depth=_whole(description="depth", min=1, max=4, value=depth),
        node=_choice(description="node", options=NODES, value=(0, depth)),
        row=_whole(description="row", min=0, max=height - 1, value=height // 2),
        column=_whole(description="column", min=0, max=width - 1, value=width // 2),
    )


def as_html(view: views.View) -> str:
    """A view as HTML: the figure with its alt text, what its spots say when pointed at, and its lines."""
    data = base64.b64encode(png(view.figure)).decode()
    picture = f'<img alt="{escape(view.alt)}" style="max-width:100%" src="data:image/png;base64,{data}">'
    spots = "".join(
        f'<span title="{escape(spot.text)}" style="position:absolute;left:{spot.left:.2%};top:{spot.top:.2%};'
        f'width:{spot.width:.2%};height:{spot.height:.2%};border-radius:50%;cursor:help"></span>'
        for spot in view.spots
    )
    around = "position:relative;display:inline-block;max-width:100%;line-height:0;vertical-align:top"
    lines = "white-space:pre-wrap;word-break:normal;line-height:1.4;margin:0.3em 0"
    return f'<div style="{around}">{picture}{spots}</div><pre style="{lines}">{escape(view.text)}</pre>'
