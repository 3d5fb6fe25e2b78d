"""Drawn tissue: thin dark lines, cells that all touch, a folder that loads."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.measure import label

from course_lib.data import load
from course_lib.data.membranes import SPACING, THICKNESS, draw_membranes, write_folder
from course_lib.errors import UserError


def test_images_depend_on_seed_and_number_alone():
    images, labels = draw_membranes(3, 64, seed=5)
    again, _ = draw_membranes(2, 64, seed=5)
    assert (images[:2] == again).all() and not (images[0] == images[1]).all()
    assert not (draw_membranes(1, 64, seed=6)[0] == images[:1]).all()
    assert images.dtype == np.uint8 and labels.dtype == np.int32 and images.shape == labels.shape == (3, 64, 64)


def test_cells_are_whole_and_numbered_without_gaps():
    _, labels = draw_membranes(2, 128)
    for picture in labels:
        assert set(np.unique(picture)) == set(range(picture.max() + 1))
        expected = (128 / SPACING) ** 2
        assert 0.8 * expected < picture.max() < 2.5 * expected
        pieces = label(picture, connectivity=1)
        assert pieces.max() <= 1.15 * picture.max()  # bending cuts few cells


def test_membranes_are_thin_dark_and_between_all_cells():
    images, labels = draw_membranes(2, 128)
    for image, picture in zip(images, labels, strict=True):
        membrane = picture == 0
        assert 0.08 < membrane.mean() < 0.3
        assert np.quantile(distance_transform_edt(membrane)[membrane], 0.95) < 1.5 * THICKNESS
        assert image[membrane].mean() < 0.8 * image[~membrane].mean()
        neighbours = picture[:, 1:] * picture[:, :-1] > 0
        assert (picture[:, 1:] == picture[:, :-1])[neighbours].mean() > 0.99  # no two cells share a border


def test_the_folder_loads_as_own_data(tmp_path):
    folder = write_folder(tmp_path / "tissue", count=5, size=48, seed=1)
    images, labels = draw_membranes(5, 48, seed=1)
    splits = load(folder, 48, progress=False)
    assert sum(len(part.ids) for part in splits) == 5
    for part in splits:
        for id, image, found in zip(part.ids, part.images, part.labels, strict=True):
            n = int(id.removeprefix("tissue"))
            assert (image[0].numpy() == images[n]).all() and ((found.numpy() > 0) == (labels[n] > 0)).all()
    with pytest.raises(UserError, match="is there already and not empty"):
        write_folder(folder)
