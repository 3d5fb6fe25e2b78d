"""Touching nuclei apart: disks with a known answer, and what is not a nucleus."""

import numpy as np
import pytest
from skimage.draw import disk
from skimage.transform import resize

from course_lib.predict.instances import separate


def disks(*circles, shape=(40, 56)):
    """Probability 0.9 inside each (row, column, radius), 0.1 outside."""
    probability = np.full(shape, 0.1, dtype=np.float32)
    for row, column, radius in circles:
        probability[disk((row, column), radius, shape=shape)] = 0.9
    return probability


def names(labels):
    return np.unique(labels[labels > 0]).tolist()


def test_overlapping_disks_become_two():
    found = separate(disks((20, 20, 9), (20, 34, 9)))
    assert names(found) == [1, 2]
    assert found[20, 20] != found[20, 34]
    # the border runs down the middle, between columns 26 and 28
    assert len(set(found[12:29, 11:26][found[12:29, 11:26] > 0])) == 1
    assert len(set(found[12:29, 29:43][found[12:29, 29:43] > 0])) == 1


def test_the_border_runs_through_the_neck():
    """A large and a small disk: their rims cross at column 18 + (16**2 + 12**2 - 6**2) / (2 * 16) = 29.4."""
    found = separate(disks((20, 18, 12), (20, 34, 6)))
    assert names(found) == [1, 2]
    left, right = found[:, :28], found[:, 32:]
    assert np.unique(left[left > 0]).tolist() == [found[20, 18]]
    assert np.unique(right[right > 0]).tolist() == [found[20, 34]]


@pytest.mark.parametrize("radius", [3, 5, 9, 14])
def test_one_disk_stays_one(radius):
    probability = disks((19, 27, radius))
    found = separate(probability)
    assert names(found) == [1]
    assert np.array_equal(found > 0, probability > 0.5)


def test_disks_apart():
    circles = [(10, 10, 6), (10, 40, 5), (30, 12, 4), (29, 40, 8)]
    probability = disks(*circles)
    found = separate(probability)
    assert names(found) == [1, 2, 3, 4]
    assert len({found[row, column] for row, column, _ in circles}) == 4
    assert np.array_equal(found > 0, probability > 0.5)


def test_nothing_there():
    found = separate(np.zeros((12, 17), dtype=np.float32))
    assert found.shape == (12, 17)
    assert found.dtype == np.int32
    assert not found.any()


def test_everything_there():
    assert names(separate(np.ones((20, 30)))) == [1]


def test_specks_are_dropped_and_numbers_stay_consecutive():
    probability = disks((30, 40, 6))
    probability[2:4, 2:5] = 0.9  # 6 pixels
    probability[10:12, 2:6] = 0.9  # 8 pixels
    found = separate(probability)
    assert found[2:4, 2:5].max() == 0
    assert names(found) == [1, 2]
    assert (found[10:12, 2:6] > 0).all()
    assert names(separate(probability, scale=1.1)) == [1]  # 8 * 1.21 pixels, at least


def test_labels_are_int32_and_inside_the_mask():
    rng = np.random.default_rng(0)
    probability = np.kron(rng.random((10, 14)), np.ones((4, 4)))
    found = separate(probability)
    assert found.dtype == np.int32
    assert names(found) == list(range(1, found.max() + 1))
    assert (probability[found > 0] > 0.5).all()
    assert np.bincount(found.ravel())[1:].min() >= 8


def test_the_threshold_is_exclusive():
    probability = disks((20, 20, 6)).astype(np.float64)
    probability[probability > 0.5] = 0.7
    assert names(separate(probability, threshold=0.69)) == [1]
    assert names(separate(probability, threshold=0.7)) == []


def test_peaks_nearer_than_the_spacing_are_one_nucleus():
    probability = disks((20, 20, 9), (20, 34, 9))
    assert names(separate(probability, scale=6)) == [1]
    apart = disks((20, 20, 7), (20, 36, 7))
    assert names(separate(apart, scale=2)) == [1, 2]


def test_an_enlarged_map_holds_as_many_nuclei():
    """Middles two pixels apart are one nucleus; enlarged tenfold they are twenty apart, and still one."""
    small = disks((14, 13, 6), (14, 15, 6), (32, 34, 9), shape=(48, 48))
    large = resize(small, (480, 480), order=1)
    assert separate(small).max() == 2
    assert separate(large, scale=10).max() == 2
    assert separate(large).max() > 2  # without the scale
