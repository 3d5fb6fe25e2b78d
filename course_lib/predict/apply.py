"""A trained net on an image file: probability map, nuclei, a table of them, and a picture to check by eye."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from skimage.measure import regionprops
from skimage.segmentation import find_boundaries
from torch import nn
from torch.nn.functional import interpolate

from course_lib.data import pixels
from course_lib.errors import UserError
from course_lib.predict.maps import Head, predict
from course_lib.predict.setting import Setting

OUTLINE = (230, 159, 0)  # the orange of the figures


class Applied(NamedTuple):
    """What `apply_to` makes of one image, all at the size of the file."""

    image: np.ndarray  # uint8 (H, W, 3)
    probability: np.ndarray  # float32 (H, W)
    scale: float  # how many times larger the image is than what the net saw: for `instances.separate`


def apply_to(
    path: str | Path, net: nn.Module, *, size: int | None = None, head: Head = "mean", setting: Setting | None = None
) -> Applied:
    """The probability map of an image file, at the file's own size.

    A net that was trained on images resized to `size` sees this one resized as well. None: it sees the file's own
    pixels, in tiles where the image is large.
    Raises UserError: the file cannot be read, or the net does not take its channels.
    """
    try:
        image = pixels.read_image(Path(path).read_bytes(), str(path))
    except OSError as problem:
        raise UserError(f"{path} cannot be read ({problem.strerror}): check the path") from problem
    height, width = image.shape[:2]
    seen = image if size is None else pixels.resize_image(image, size)
    maps = predict(net, torch.from_numpy(seen).permute(2, 0, 1), head=head, setting=setting)
    if size is None:
        return Applied(image, maps[0].numpy(), 1)
    enlarged = interpolate(maps[None, :1], (height, width), mode="bilinear")
    return Applied(image, enlarged[0, 0].numpy(), max(1, max(height, width) / size))


def objects(labels: np.ndarray) -> list[dict[str, Any]]:
    """One row a nucleus of labels (H, W): its "number", "area" in pixels, and "row" and "column" of its middle."""
    return [
        {"number": region.label, "area": int(region.area), "row": round(row, 1), "column": round(column, 1)}
        for region in regionprops(labels)
        for row, column in [region.centroid]
    ]


def outlined(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The image uint8 (H, W, 3) with the inner border of every nucleus of labels (H, W) in orange."""
    picture = image.copy()
    picture[find_boundaries(labels, mode="inner")] = OUTLINE
    return picture
