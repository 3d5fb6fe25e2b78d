"""From a probability map to separate nuclei, also where they touch."""

from statistics import fmean

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.feature import peak_local_max
from skimage.filters import gaussian
from skimage.measure import label
from skimage.segmentation import watershed
from torch import Tensor

from course_lib.metrics import average_precision

SPACING = 3  # pixels between the middles of two nuclei, at least
SMALLEST = 8  # pixels of a nucleus, at least


def separate(probability: np.ndarray, *, threshold: float = 0.5, scale: float = 1) -> np.ndarray:
    """Instance labels int32 (H, W), 0 for background, of a probability map (H, W).

    Every peak of the mask's distance map is one nucleus, and the watershed from the peaks draws the borders
    (the classical split of touching round things; it cuts long nuclei and joins overlapping ones).

    A pixel is nucleus where the probability is above `threshold`. `scale` says how many times the map is larger than
    what the net saw, or what it shows larger than nuclei of a few pixels. SPACING and the blur of the distance map grow
    with it, and SMALLEST with its square, so that an enlarged map holds as many nuclei.
    """
    mask = probability > threshold
    distance = gaussian(distance_transform_edt(mask), sigma=scale)
    peaks = peak_local_max(distance, min_distance=round(SPACING * scale), labels=label(mask), exclude_border=False)
    seeds = np.zeros(mask.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    nuclei = watershed(-distance, seeds, mask=mask)
    large = np.bincount(nuclei.ravel()) >= SMALLEST * scale**2
    return label(nuclei * large[nuclei], connectivity=1).astype(np.int32)


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
