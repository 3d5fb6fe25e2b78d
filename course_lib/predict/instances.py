"""From a probability map to separate nuclei, also where they touch."""

from statistics import fmean

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects
from scipy.ndimage import label as connected
from skimage.feature import peak_local_max
from skimage.filters import gaussian
from skimage.measure import label
from skimage.segmentation import watershed
from torch import Tensor

from course_lib.metrics import average_precision

SPACING = 3  # pixels between the middles of two nuclei, at least
SMALLEST = 8  # pixels of a nucleus, at least
BLOCK = 1024  # pixels: maps of more than two blocks a side are split block by block


def separate(probability: np.ndarray, *, threshold: float = 0.5, scale: float = 1) -> np.ndarray:
    """Instance labels int32 (H, W), 0 for background, of a probability map (H, W).

    Every peak of the mask's distance map is one nucleus, and the watershed from the peaks draws the borders
    (the classical split of touching round things; it cuts long nuclei and joins overlapping ones).

    A pixel is nucleus where the probability is above `threshold`. `scale` says how many times the map is larger than
    what the net saw, or what it shows larger than nuclei of a few pixels. SPACING and the blur of the distance map grow
    with it, and SMALLEST with its square, so that an enlarged map holds as many nuclei.
    """
    mask = probability > threshold
    return _split(mask, scale) if max(mask.shape) <= 2 * BLOCK else _in_blocks(mask, scale)


def _split(mask: np.ndarray, scale: float) -> np.ndarray:
    distance = gaussian(distance_transform_edt(mask), sigma=scale)
    peaks = peak_local_max(distance, min_distance=round(SPACING * scale), labels=label(mask), exclude_border=False)
    seeds = np.zeros(mask.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    nuclei = watershed(-distance, seeds, mask=mask)
    large = np.bincount(nuclei.ravel()) >= SMALLEST * scale**2
    return label(nuclei * large[nuclei], connectivity=1).astype(np.int32)


def _in_blocks(mask: np.ndarray, scale: float) -> np.ndarray:
    """The same labels with the memory of a block: pieces that do not touch are split without each other.

    A window around the pieces that begin in a block shows all they depend on: the blur reaches four deviations, and
    the nearest background of a pixel within its reach is no further away again.
    """
    pieces, halo = np.empty(mask.shape, np.int32), 2 * round(4 * scale + 0.5) + 2
    connected(mask, np.ones((3, 3)), output=pieces)
    blocks: dict[tuple[int, int], list[int]] = {}
    boxes = find_objects(pieces)
    for number, (rows, columns) in enumerate(boxes, start=1):
        blocks.setdefault((rows.start // BLOCK, columns.start // BLOCK), []).append(number)
    nuclei, begins = np.zeros_like(pieces), [np.array([-1])]  # where each nucleus begins, row by row
    for numbers in blocks.values():
        ends = np.array([[(side.start, side.stop) for side in boxes[n - 1]] for n in numbers])  # (pieces, 2, 2)
        top, left = np.maximum(ends[:, :, 0].min(0) - halo, 0)
        bottom, right = ends[:, :, 1].max(0) + halo
        window = slice(top, bottom), slice(left, right)
        found = _split(mask[window], scale)
        found[~np.isin(pieces[window], numbers)] = 0
        values, first = np.unique(found, return_index=True)
        values, first = values[values > 0], first[values > 0]
        nuclei[window][found > 0] = sum(map(len, begins)) + np.searchsorted(values, found[found > 0])
        begins.append((top + first // found.shape[1]) * mask.shape[1] + left + first % found.shape[1])
    ranks = np.argsort(np.argsort(np.concatenate(begins))).astype(np.int32)  # background stays 0
    for row in range(0, len(nuclei), BLOCK):
        nuclei[row : row + BLOCK] = ranks[nuclei[row : row + BLOCK]]
    return nuclei


def instance_scores(probabilities: Tensor, labels: Tensor, *, scale: float = 1) -> dict[str, float]:
    """How well `separate` with this `scale` finds the nuclei of maps (N, 1, H, W), against instance labels (N, H, W).

    "ap50" and "ap75": average precision at IoU 0.5 and 0.75, the mean over images; "nuclei_found" and "nuclei_true":
    their numbers in all images together.
    """
    predicted = [separate(image[0].numpy(), scale=scale) for image in probabilities]
    true = [image.numpy() for image in labels]
    precision = {
        name: fmean(average_precision(*pair, threshold=threshold) for pair in zip(predicted, true, strict=True))
        for name, threshold in (("ap50", 0.5), ("ap75", 0.75))
    }
    return precision | {
        "nuclei_found": sum(int(nuclei.max()) for nuclei in predicted),
        "nuclei_true": sum(len(np.unique(nuclei[nuclei > 0])) for nuclei in true),
    }
