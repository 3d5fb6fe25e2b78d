"""The scores: by hand on a few pixels, against torchmetrics, SciPy and plain loops, and each under its own name."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from course_lib.metrics import Counts, average_precision, boundary_iou, count, dice, iou, scores


def masks(*rows):
    """Strings of 0 and 1 -> masks (N, 1, 1, pixels)."""
    return torch.tensor([[int(pixel) for pixel in row] for row in rows])[:, None, None]


def random_masks(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, count, 1, 4, 6, generator=generator) < 0.4
    true, predicted = coarse.repeat_interleave(4, -2).repeat_interleave(4, -1)
    return predicted ^ (torch.rand(true.shape, generator=generator) < 0.1), true


def test_counts_by_hand():
    counts = count(masks("1100", "1110", "0000"), masks("1010", "0000", "0111"))
    assert [field.tolist() for field in counts] == [[1, 0, 0], [1, 3, 0], [1, 0, 3]]
    assert all(field.dtype == torch.int64 for field in counts)
    assert [field.tolist() for field in counts.pooled()] == [[1], [4], [4]]


@pytest.mark.parametrize(
    ("predicted", "true", "expected_iou", "expected_dice"),
    [
        ("1100", "1010", 1 / 3, 1 / 2),
        ("1111", "1000", 1 / 4, 2 / 5),
        ("1000", "1110", 1 / 3, 1 / 2),
        ("1010", "1010", 1, 1),
        ("1100", "0011", 0, 0),
        ("0000", "0000", 1, 1),  # nothing there, nothing found
        ("0100", "0000", 0, 0),
        ("0000", "0100", 0, 0),
    ],
)
def test_iou_and_dice_by_hand(predicted, true, expected_iou, expected_dice):
    counts = count(masks(predicted), masks(true))
    assert iou(counts).item() == pytest.approx(expected_iou, abs=1e-12)
    assert dice(counts).item() == pytest.approx(expected_dice, abs=1e-12)


def test_per_image_pooled_and_batch_means_are_three_scores():
    """A large nucleus found well, a small one missed, an invented one: the average matters."""
    predicted, true = masks("11111111", "00000000", "00000011"), masks("11111110", "10000000", "00000001")
    # dice: 14/15, 0, 2/3
    counts = count(predicted, true)
    found = scores(predicted, true)
    assert all(type(value) is float for value in found.values())
    assert found["boundary_iou_per_image"] == boundary_iou(predicted, true).mean().item()
    assert found["dice_per_image"] == pytest.approx((14 / 15 + 0 + 2 / 3) / 3, abs=1e-12)
    assert found["dice_pooled"] == pytest.approx(16 / 19, abs=1e-12)
    assert found["iou_per_image"] == pytest.approx((7 / 8 + 0 + 1 / 2) / 3, abs=1e-12)
    assert found["iou_pooled"] == pytest.approx(8 / 11, abs=1e-12)
    batches = [dice(Counts(*(field[part] for field in counts)).pooled()).item() for part in (slice(2), slice(2, 3))]
    of_batches = sum(batches) / 2  # (14/16 + 2/3) / 2
    assert of_batches == pytest.approx(0.7708, abs=1e-4)
    assert min(abs(of_batches - found[name]) for name in ("dice_per_image", "dice_pooled")) > 0.05


def test_torchmetrics_agrees():
    predicted, true = random_masks()
    found, p, t = count(predicted, true), predicted.int(), true.int()
    assert iou(found.pooled()).item() == pytest.approx(binary_jaccard_index(p, t).item(), abs=1e-6)
    assert dice(found.pooled()).item() == pytest.approx(binary_f1_score(p, t).item(), abs=1e-6)
    each = torch.stack([binary_jaccard_index(p[n], t[n]) for n in range(len(p))])
    torch.testing.assert_close(iou(found), each.double(), rtol=0, atol=1e-6)
    each = binary_f1_score(p.flatten(1), t.flatten(1), multidim_average="samplewise")
    torch.testing.assert_close(dice(found), each.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_scores_do_not_depend_on_the_type_or_the_order(dtype):
    predicted, true = random_masks()
    expected = scores(predicted, true)
    assert scores(predicted.to(dtype), true.to(dtype)) == expected
    flipped = scores(predicted.flip(0, 3).to(dtype), true.flip(0, 3).to(dtype))
    assert flipped == pytest.approx(expected, abs=1e-12)


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"predicted \(1, 1, 1, 3\) and true \(1, 1, 1, 4\) differ in shape"):
        count(masks("110"), masks("1100"))


# The border


@pytest.mark.parametrize("width", [1, 2, 3])
def test_boundary_iou_is_iou_of_what_erosion_takes_away(width):
    predicted, true = random_masks()
    square = np.ones((2 * width + 1,) * 2)
    rims = [
        [mask & ~binary_erosion(mask, square) for mask in stack[:, 0].numpy()]  # outside the image: not the mask
        for stack in (predicted, true)
    ]
    expected = [(p & t).sum() / (p | t).sum() for p, t in zip(*rims, strict=True)]
    torch.testing.assert_close(boundary_iou(predicted, true, width=width), torch.tensor(expected), rtol=0, atol=1e-12)


def square(top, left, side, size=48):
    mask = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    mask[..., top : top + side, left : left + side] = 1
    return mask


def test_boundary_iou_by_hand():
    # Rims 2 wide of a 10x10 square and of the 8x8 one inside it: 64 and 48 pixels, 28 of them shared.
    assert boundary_iou(square(5, 5, 10), square(6, 6, 8)).item() == pytest.approx(28 / (64 + 48 - 28), abs=1e-12)
    true, shifted = square(8, 8, 32), square(9, 9, 32)  # it sees what IoU forgives
    assert iou(count(shifted, true)).item() > 0.87
    assert boundary_iou(shifted, true).item() < 0.5
    assert boundary_iou(true, true).item() == 1
    empty = torch.zeros(1, 1, 6, 8)
    assert boundary_iou(empty, empty).item() == 1
    assert boundary_iou(square(1, 1, 3), torch.zeros(1, 1, 48, 48)).item() == 0


# Instances


def line(text):
    return np.array([[int(pixel) for pixel in text]])


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ("1110022200", "1110022200", 1),
        ("2220011100", "1110022200", 1),  # numbers are names
        ("7770099900", "1110022200", 1),  # and need not be consecutive
        ("1110000000", "1110022200", 1 / 2),  # one missed
        ("1110022233", "1110022200", 2 / 3),  # one invented
        ("1111100000", "1112200000", 1 / 2),  # merged: IoU 3/5 with one and 2/5 with the other
        ("1112220000", "1111110000", 0),  # split in halves: IoU 1/2 is not above 1/2
        ("1111200000", "1111110000", 1 / 2),  # split unevenly: 4/6 pairs, the rest is invented
        ("0000000000", "0000000000", 1),
        ("1100000000", "0000000000", 0),
        ("0000000000", "1100000000", 0),
        ("1111122222", "1111122222", 1),  # no background at all
        ("1111111111", "1111111111", 1),
        ("3333333333", "1111111100", 1),  # background in one of the two only
        ("1111111100", "3333333333", 1),
        ("1111111111", "0000000000", 0),
    ],
)
def test_average_precision_by_hand(predicted, true, expected):
    assert average_precision(line(predicted), line(true)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_against_loops(seed):
    rng = np.random.default_rng(seed)
    true = np.kron(rng.choice([0, *range(3, 21, 2)], (4, 6)), np.ones((4, 4), int)).astype(np.int32)
    predicted = np.where(rng.random(true.shape) < 0.35, rng.choice([0, 3, 11, 12], true.shape), true)
    names = [[k for k in np.unique(labels) if k != 0] for labels in (predicted, true)]
    pairs = [(predicted == p, true == t) for p in names[0] for t in names[1]]
    tp = sum((p & t).sum() > 0.5 * (p | t).sum() for p, t in pairs)
    assert 0 < tp < len(names[1])  # not a trivial case
    expected = tp / (len(names[0]) + len(names[1]) - tp)
    assert average_precision(predicted, true) == pytest.approx(expected, abs=1e-12)


def test_the_threshold_decides_and_what_cannot_be_paired_is_refused():
    predicted, true = line("1111200000"), line("1111110000")  # the best pair has IoU 4/6
    assert average_precision(predicted, true, threshold=0.66) == 1 / 2
    assert average_precision(predicted, true, threshold=0.67) == 0
    with pytest.raises(ValueError, match=r"threshold 0\.4 is below 0\.5"):
        average_precision(line("110"), line("110"), threshold=0.4)
    with pytest.raises(ValueError, match="differ in shape"):
        average_precision(line("110"), line("1100"))
