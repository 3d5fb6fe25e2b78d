"""Otsu's threshold as masks: exact where the answer is known, the same for either sign, nothing for one colour."""

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from course_lib.data import Split
from course_lib.metrics import count, iou
from course_lib.predict.baseline import otsu_masks


def split(images):
    count, _, *size = images.shape
    return Split(images, torch.zeros(count, 1, *size), torch.zeros(count, *size), [str(n) for n in range(count)])


@pytest.fixture
def masks():
    """Three images with one rectangle each."""
    masks = torch.zeros(3, 1, 16, 24, dtype=torch.bool)
    for n in range(3):
        masks[n, :, 3 + n : 9 + n, 4 : 12 + n] = True
    return masks


@pytest.mark.parametrize("inverted", [False, True])
def test_two_tones_exactly_bright_or_dark(masks, inverted):
    images = (40 + 90 * masks.to(torch.uint8)).expand(-1, 3, -1, -1)
    predicted = otsu_masks(split(255 - images if inverted else images))
    assert predicted.dtype == torch.bool and torch.equal(predicted, masks)


def test_one_colour_has_no_nuclei():
    images = torch.stack([torch.full((3, 8, 12), value, dtype=torch.uint8) for value in (0, 130, 255)])
    predicted = otsu_masks(split(images))
    assert predicted.shape == (3, 1, 8, 12) and not predicted.any()


def test_the_mean_of_the_channels_decides():
    image = torch.zeros(1, 3, 8, 12, dtype=torch.uint8)
    image[0, 2, 2:5, 3:6] = 90  # visible in one channel only
    assert torch.equal(otsu_masks(split(image)), image[:, 2:] > 0)


def test_each_image_has_its_own_threshold(masks):
    noise = 12 * torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    images = (60 + 110 * masks + noise).clamp(0, 255).to(torch.uint8)
    images[1] = images[1] // 4  # a dark image: a shared threshold would lose it
    predicted = otsu_masks(split(images))
    assert (iou(count(predicted, masks)) > 0.95).all()
    for n, image in enumerate(images.float().mean(1).numpy()):
        assert np.array_equal(predicted[n, 0].numpy(), image > threshold_otsu(image))
