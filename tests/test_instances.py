"""Touching nuclei apart: disks with a known answer, and what is not a nucleus."""

import numpy as np
import pytest
import torch
from skimage.draw import disk
from skimage.filters import gaussian
from skimage.transform import resize

from course_lib.predict import instances
from course_lib.predict.instances import instance_scores, separate


def disks(*circles, shape=(40, 56)):
    """Probability 0.9 inside each (row, column, radius), 0.1 outside."""
    probability = np.full(shape, 0.1, dtype=np.float32)
    for row, column, radius in circles:
        probability[disk((row, column), radius, shape=shape)] = 0.9
    return probability


def names(labels):
    return np.unique(labels[labels > 0]).tolist()


@pytest.mark.parametrize(
    ("right", "border"),
    [
        ((20, 34, 9), 27),  # as large as the left one: the border runs down the middle
        ((20, 32, 6), 27.9),  # rims cross at column 20 + (12**2 + 9**2 - 6**2) / (2 * 12) = 27.9
    ],
)
def test_overlapping_disks_part_at_the_neck(right, border):
    labels = separate(disks((20, 20, 9), right))
    assert names(labels) == [1, 2] and labels[20, 20] != labels[20, right[1]]
    assert names(labels[:, : int(border - 1)]) == [labels[20, 20]]
    assert names(labels[:, int(border + 2) :]) == [labels[20, right[1]]]


@pytest.mark.parametrize(
    "circles", [[(19, 27, 3)], [(19, 27, 14)], [(0, 27, 5)], [(10, 10, 6), (10, 40, 5), (30, 12, 4), (29, 40, 8)]]
)
def test_disks_apart_stay_whole(circles):
    probability = disks(*circles)
    labels = separate(probability)
    assert np.array_equal(labels > 0, probability > 0.5)
    assert sorted(labels[row, column] for row, column, _ in circles) == names(labels) == [*range(1, len(circles) + 1)]


@pytest.mark.parametrize(("value", "numbers"), [(0.0, []), (1.0, [1])])
def test_nothing_there_and_everything_there(value, numbers):
    labels = separate(np.full((12, 17), value, np.float32))
    assert (labels.shape, labels.dtype) == ((12, 17), np.int32) and names(labels) == numbers


def test_specks_are_dropped_and_numbers_stay_consecutive():
    probability = disks((30, 40, 6))
    probability[2:4, 2:5] = 0.9  # 6 pixels
    probability[10:12, 2:6] = 0.9  # 8 pixels
    labels = separate(probability)
    assert labels[2:4, 2:5].max() == 0 and (labels[10:12, 2:6] > 0).all() and names(labels) == [1, 2]
    assert names(separate(probability, scale=1.1)) == [1]  # 8 * 1.21 pixels, at least


def test_of_noise_every_nucleus_is_large_enough_and_inside_the_mask():
    probability = np.kron(np.random.default_rng(0).random((10, 14)), np.ones((4, 4)))
    labels = separate(probability)
    assert names(labels) == list(range(1, labels.max() + 1))
    assert (probability[labels > 0] > 0.5).all() and np.bincount(labels.ravel())[1:].min() >= 8


def test_the_threshold_is_exclusive():
    probability = np.where(disks((20, 20, 6)) > 0.5, 0.7, 0.1)
    assert names(separate(probability, threshold=0.69)) == [1]
    assert names(separate(probability, threshold=0.7)) == []


def test_peaks_nearer_than_the_spacing_are_one_nucleus():
    assert names(separate(disks((20, 20, 9), (20, 34, 9)), scale=6)) == [1]
    assert names(separate(disks((20, 20, 7), (20, 36, 7)), scale=2)) == [1, 2]


def test_an_enlarged_map_holds_as_many_nuclei():
    """Middles two pixels apart are one nucleus; enlarged tenfold they are twenty apart, and still one."""
    small = disks((14, 13, 6), (14, 15, 6), (32, 34, 9), shape=(48, 48))
    large = resize(small, (480, 480), order=1)
    assert separate(small).max() == 2
    assert separate(large, scale=10).max() == 2
    assert separate(large).max() > 2  # without the scale


@pytest.mark.parametrize("scale", [1, 2.5])
def test_a_large_map_is_split_block_by_block_into_the_same_nuclei(monkeypatch, scale):
    """Noise of all sizes: pieces that reach over many blocks, and neighbours whose blur mixes."""
    rng, found = np.random.default_rng(0), 0
    for blur in (1.5, 3, 5):
        noise = gaussian(rng.random((120, 170)), blur)
        for share in (0.3, 0.5, 0.7):
            given = {"threshold": np.quantile(noise, 1 - share), "scale": scale}
            monkeypatch.setattr(instances, "BLOCK", 10**6)
            whole = separate(noise, **given)
            monkeypatch.setattr(instances, "BLOCK", 16)
            blocks = separate(noise, **given)
            assert blocks.dtype == np.int32 and np.array_equal(whole, blocks)
            found += whole.max()
    assert found > 60


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_large_map_of_nothing_or_everything(monkeypatch, value):
    monkeypatch.setattr(instances, "BLOCK", 8)
    labels = separate(np.full((40, 50), value, np.float32))
    assert labels.shape == (40, 50) and (labels.max() > 0) == (value == 1)


def test_scores_count_nuclei_and_match_them():
    two, three = disks((20, 14, 6), (20, 40, 6)), disks((20, 14, 6), (20, 40, 6), (6, 27, 4))
    labels = torch.from_numpy(np.stack([separate(two), separate(three)]))
    maps = torch.from_numpy(np.stack([two, two]))[:, None]  # the second image lacks one of three
    scores = instance_scores(maps, labels)
    assert scores == {
        "ap50": pytest.approx((1 + 2 / 3) / 2),
        "ap75": scores["ap50"],
        "nuclei_found": 4,
        "nuclei_true": 5,
    }
    assert instance_scores(maps, labels, scale=6)["nuclei_found"] == 0  # below 8 * 36 pixels
