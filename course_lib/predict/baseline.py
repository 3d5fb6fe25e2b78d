"""The baseline that every net has to beat: one threshold per image, no training (Otsu, 1979)."""

import numpy as np
import torch
from skimage.filters import threshold_otsu
from torch import Tensor

from course_lib.data import Split


def otsu_masks(split: Split) -> Tensor:
    """Masks bool (N, 1, S, S): pixels beyond Otsu's threshold of the grey image.

    Of the bright and the dark side, that with fewer pixels is taken: right for most microscope images, without any
    annotation. An image of one colour has no nuclei: its threshold is that colour.
    """
    masks = []
    for image in split.images:
        grey = image.float().mean(0).numpy()
        bright = grey > threshold_otsu(grey)
        masks.append(bright if bright.mean() <= 0.5 else ~bright)
    return torch.from_numpy(np.stack(masks))[:, None]
