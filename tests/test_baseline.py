"""Otsu's threshold as masks: exact where the answer is known, the same for either sign, nothing for one colour."""

import numpy as np
import torch
from skimage.filters import threshold_otsu

from course_lib.data import Split
from course_lib.metrics import count, iou
from course_lib.predict.baseline import otsu_masks


def split(images):
    count, _, height, width = images.shape
    return Split(
        images,
        torch.zeros(count, 1, height, width, dtype=torch.uint8),
        torch.zeros(count, height, width, dtype=torch.int32),
        [f"{n}" for n in range(count)],
    )


def noisy(count=3, size=(16, 24), seed=0):
    """Bright blobs on a dark ground with noise, and their masks."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 1, *size, dtype=torch.bool)
    for n in range(count):
        masks[n, :, 3 + n : 9 + n, 4 : 12 + n] = True
    images = 60 + 110 * masks + 12 * torch.randn(count, 3, *size, generator=generator)
    return images.clamp(0, 255).to(torch.uint8), masks


def test_two_tones_exactly():
    _, masks = noisy()
    images = (40 + 90 * masks.to(torch.uint8)).expand(-1, 3, -1, -1)
    found = otsu_masks(split(images))
    assert found.dtype == torch.bool
    assert torch.equal(found, masks)


def test_inverted_images_have_the_same_masks():
    _, masks = noisy()
    images = (40 + 90 * masks.to(torch.uint8)).expand(-1, 3, -1, -1)
    assert torch.equal(otsu_masks(split(255 - images)), masks)
    images, masks = noisy()
    inverted = otsu_masks(split(255 - images))
    assert (inverted != otsu_masks(split(images))).float().mean() < 0.005  # a pixel on the threshold may change sides
    assert (iou(count(inverted, masks)) > 0.95).all()


def test_one_colour_has_no_nuclei():
    images = torch.stack([torch.full((3, 8, 12), value, dtype=torch.uint8) for value in (0, 130, 255)])
    found = otsu_masks(split(images))
    assert found.shape == (3, 1, 8, 12)
    assert not found.any()


def test_the_mean_of_the_channels_decides():
    image = torch.zeros(1, 3, 8, 12, dtype=torch.uint8)
    image[0, 2, 2:5, 3:6] = 90  # visible in one channel only
    expected = image[:, 2:] > 0
    assert torch.equal(otsu_masks(split(image)), expected)


def test_each_image_has_its_own_threshold():
    images, masks = noisy()
    images[1] = images[1] // 4  # a dark image: a shared threshold would lose it
    found = otsu_masks(split(images))
    assert (iou(count(found, masks)) > 0.95).all()
    for n, image in enumerate(images.float().mean(1).numpy()):
        assert np.array_equal(found[n, 0].numpy(), image > threshold_otsu(image))
