"""From a probability map to separate nuclei, also where they touch."""

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.feature import peak_local_max
from skimage.filters import gaussian
from skimage.measure import label
from skimage.segmentation import watershed

SPACING = 3  # pixels between the middles of two nuclei, at least
SMALLEST = 8  # pixels of a nucleus, at least


def separate(probability: np.ndarray, *, threshold: float = 0.5, scale: float = 1) -> np.ndarray:
    """Instance labels int32 (H, W), 0 for background, of a probability map (H, W).

    Every peak of the mask's distance map is one nucleus, and the watershed from the peaks draws the borders
    (the classical split of touching round things; it cuts long nuclei and joins overlapping ones).

    Args:
        threshold: a pixel is nucleus where the probability is above it.
        scale: how many times the map is larger than what the net saw. SPACING and the blur of the distance map
            grow with it, and SMALLEST with its square, so that an enlarged map holds as many nuclei.
    """
    mask = probability > threshold
    distance = gaussian(distance_transform_edt(mask), sigma=scale)
    peaks = peak_local_max(distance, min_distance=round(SPACING * scale), labels=label(mask), exclude_border=False)
    seeds = np.zeros(mask.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    nuclei = watershed(-distance, seeds, mask=mask)
    large = np.bincount(nuclei.ravel()) >= SMALLEST * scale**2
    return label(nuclei * large[nuclei], connectivity=1).astype(np.int32)
