"""A trained net on an image file: probability maps, objects, a table of them, and pictures to check by eye."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.measure import regionprops
from skimage.segmentation import find_boundaries
from torch import nn
from torch.nn.functional import interpolate

from course_lib.data import pixels
from course_lib.predict.maps import Head, inputs_of, predict
from course_lib.predict.setting import Setting

COLOURS = (  # of outlines, and of classes in their order: colours that everybody can tell apart (Okabe and Ito)
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
LINE = 14  # pixels of a line of text
STRIP = 1024  # rows that are outlined at once


class Applied(NamedTuple):
    """What `apply_to` makes of one image, all at the size of the file."""

    image: np.ndarray  # uint8 (H, W, C)
    probability: np.ndarray  # float32 (K, H, W), of K classes
    scale: float  # how many times larger a side is than what the net saw, by their areas: for `instances.separate`


def apply_to(
    path: str | Path,
    net: nn.Module,
    *,
    size: int | None = None,
    shrink: int = 1,
    head: Head = "mean",
    setting: Setting | None = None,
) -> Applied:
    """The probability maps of an image file, at the file's own size.

    A net that was trained on images resized to `size` sees this one resized as well. None: it sees the file's own
    pixels, made `shrink` times smaller where it was trained on such, in tiles where the image is large. The file is
    read with the channels that the net takes.
    Raises UserError: the file cannot be read, or has other channels.
    """
    channels = getattr(net, "config", {}).get("in_channels", 3)
    content, fourth = pixels.read_file(Path(path), str(path)), inputs_of(net) != "standardised"
    image = pixels.read_image(content, str(path), channels, fourth=fourth)  # ours were never trained on transparency
    height, width = image.shape[:2]
    small = (size, size) if size else (max(1, height // shrink), max(1, width // shrink))
    seen = image if small == (height, width) else pixels.resize_image(image, small)
    maps = predict(net, torch.from_numpy(seen).permute(2, 0, 1), head=head, setting=setting)
    if seen is image:
        return Applied(image, maps.numpy(), 1)
    enlarged = interpolate(maps[None], (height, width), mode="bilinear")
    return Applied(image, enlarged[0].numpy(), max(1, math.sqrt(height * width / (small[0] * small[1]))))


def objects(labels: np.ndarray) -> list[dict[str, Any]]:
    """One row a nucleus of labels (H, W): its "number", "area" in pixels, and "row" and "column" of its middle."""
    return [
        {"number": region.label, "area": int(region.area), "row": round(row, 1), "column": round(column, 1)}
        for region in regionprops(labels)
        for row, column in [region.centroid]
    ]


def outlined(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The image uint8 (H, W, C) to look at, (H, W, 3), with the inner border of every object of labels in orange."""
    picture = pixels.as_rgb(image).copy()
    for top in range(0, len(labels), STRIP):  # with a row above and below, to take the memory of a strip alone
        edge = find_boundaries(labels[max(top - 1, 0) : top + STRIP + 1], mode="inner")[min(top, 1) :][:STRIP]
        picture[top : top + STRIP][edge] = COLOURS[0]
    return picture


def overlaid(image: np.ndarray, masks: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The image uint8 (H, W, C) to look at, each mask of (K, H, W) over it half transparent in its class's colour, and
    below it a line for each class with colour and name: uint8 (H + 14 K, W, 3).
    """
    picture, (height, width) = pixels.as_rgb(image).copy(), masks.shape[1:]
    for k, mask in enumerate(masks):
        picture[mask] = picture[mask] // 2 + np.array(COLOURS[k % len(COLOURS)], np.uint8) // 2
    page = Image.new("RGB", (width, height + LINE * len(names)))
    page.paste(Image.fromarray(picture))
    pen = ImageDraw.Draw(page)
    for k, name in enumerate(names):
        y = height + LINE * k
        pen.rectangle((2, y + 2, LINE - 2, y + LINE - 2), fill=COLOURS[k % len(COLOURS)])
        pen.text((LINE + 2, y + 1), name, fill="white")
    return np.asarray(page)
