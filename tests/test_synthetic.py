"""The drawn nuclei: what their labels promise, what each look is, and that no threshold solves them."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label

from course_lib.data.synthetic import (
    LOOKS,
    MIN_PIXELS,
    MIN_SIZE,
    clouds,
    cover,
    draw_nuclei,
    lay_out,
    outline,
    record,
)
from course_lib.errors import UserError


@pytest.fixture(scope="module")
def mixed():
    return draw_nuclei(100)


@pytest.fixture(scope="module")
def by_look():
    return {look: draw_nuclei(20, look=look) for look in LOOKS}


def neighbours_touch(labels):
    """Do two different nuclei share an edge of a pixel?"""
    pairs = ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]))
    return any(((a != b) & (a > 0) & (b > 0)).any() for a, b in pairs)


def colourfulness(images):
    return np.ptp(images.astype(int), axis=-1).mean()


def best_otsu_iou(images, labels):
    """Pooled foreground IoU when a helper tells for each image whether nuclei are the bright or the dark side."""
    overlap = union = 0
    for image, truth in zip(images, labels > 0, strict=True):
        grey = image.mean(axis=-1)
        bright = grey > threshold_otsu(grey)
        counts = [((side & truth).sum(), (side | truth).sum()) for side in (bright, ~bright)]
        o, u = max(counts, key=lambda pair: pair[0] / pair[1])
        overlap, union = overlap + o, union + u
    return overlap / union


# ---- shapes, labels ----


@pytest.mark.parametrize("look", [None, *LOOKS])
@pytest.mark.parametrize("size", [MIN_SIZE, 47])
def test_shapes_types_and_labels_at_any_size(size, look):
    images, labels = draw_nuclei(12, size, look=look)
    assert images.shape == (12, size, size, 3) and images.dtype == np.uint8
    assert labels.shape == (12, size, size) and labels.dtype == np.int32
    for one in labels:
        assert_labels_are_sound(one)


def assert_labels_are_sound(labels):
    """Numbers 0, 1..K without a gap, K >= 1; each nucleus one 4-connected piece of at least MIN_PIXELS."""
    numbers, pixels = np.unique(labels, return_counts=True)
    assert numbers[-1] >= 1
    assert numbers.tolist() == list(range(numbers[-1] + 1))
    assert pixels[1:].min() >= MIN_PIXELS
    # Pieces of equal number: as many as there are nuclei, so no nucleus is split.
    assert label(labels, connectivity=1, background=0).max() == numbers[-1]


def test_images_at_the_usual_size_are_sound_crowded_and_sparse(mixed):
    for one in mixed[1]:
        assert_labels_are_sound(one)
    touch = np.mean([neighbours_touch(one) for one in mixed[1]])
    cut = np.mean([(one[0] > 0).any() or (one[:, 0] > 0).any() for one in mixed[1]])
    nuclei = mixed[1].max(axis=(1, 2))
    assert touch > 0.6 and cut > 0.5 and nuclei.min() <= 5 and nuclei.max() >= 40


# ---- looks ----


def test_grey_nuclei_are_bright_on_dark_or_dark_on_bright(by_look):
    for look in ("fluorescence", "small-sharp", "brightfield"):
        images, labels = by_look[look]
        inside, outside = images[labels > 0], images[labels == 0]
        assert colourfulness(images) == 0
        if look == "brightfield":
            assert np.median(outside) > 130 and inside.mean() < 0.6 * outside.mean()
        else:
            assert np.median(outside) < 40 and inside.mean() > 2.5 * outside.mean()


@pytest.mark.parametrize("look", ["tissue", "large-blurred"])
def test_tissue_is_pink_and_violet_with_darker_nuclei(by_look, look):
    images, labels = by_look[look]
    assert colourfulness(images) > 15
    red, green, blue = (images[..., c] for c in range(3))
    assert green.mean() < min(red.mean(), blue.mean())  # both stains take green away most
    assert red[labels > 0].mean() < 0.75 * red[labels == 0].mean()  # eosin spares red, haematoxylin does not
    assert (blue[labels > 0] > red[labels > 0]).mean() > 0.8


def test_small_is_small_large_is_large_and_blurred_is_blurred(by_look):
    def detail(look):  # what a blur of one pixel would take away, relative to all contrast
        grey = by_look[look][0].mean(axis=-1)
        return np.mean([(gaussian(g, 0.7) - gaussian(g, 1.4)).std() / g.std() for g in grey])

    area = {look: (labels > 0).sum() / labels.max(axis=(1, 2)).sum() for look, (_, labels) in by_look.items()}
    assert area["small-sharp"] < area["fluorescence"] / 2.5
    assert area["large-blurred"] > area["tissue"] * 2.5
    assert detail("large-blurred") < 0.6 * detail("tissue")
    assert detail("small-sharp") > 1.5 * detail("fluorescence")


# ---- the steps, on values known by hand ----


def test_an_outline_without_wobble_is_the_ellipse_asked_for():
    rng, centre = np.random.default_rng(0), np.array([20.3, 30.4])
    window, distance = outline(rng, 60, centre=centre, axes=(24, 6), wobble=0)
    rows, columns = np.nonzero(distance < 1)
    assert len(rows) == pytest.approx(np.pi * 12**2, rel=0.03)
    assert cover(distance, 12).sum() == pytest.approx(np.pi * 12**2, rel=0.03)
    # Semi-axes 24 along the columns, 6 across.
    assert (rows + window[0].start).tolist() == pytest.approx([20.3] * len(rows), abs=6)
    assert (columns + window[1].start).tolist() == pytest.approx([30.4] * len(rows), abs=24)
    assert (np.ptp(rows), np.ptp(columns)) == (11, 47)


def test_clouds_have_no_mean_unit_variance_and_lie_along_their_direction():
    field = clouds(np.random.default_rng(0), 64, grain=0.05, stretch=6, direction=0.0)
    assert field.mean() == pytest.approx(0, abs=1e-9)
    assert field.std() == pytest.approx(1)
    assert np.diff(field, axis=0).std() > 2 * np.diff(field, axis=1).std()


def test_the_camera_keeps_the_mean_and_adds_noise_that_grows_with_light():
    dark, dim, bright = (
        np.stack([record(np.random.default_rng(n), np.full((32, 32, 1), level)) for n in range(20)]).astype(float)
        for level in (0, 0.1, 0.8)
    )
    assert dim.mean() == pytest.approx(0.1 * 255, rel=0.01)
    assert bright.mean() == pytest.approx(0.8 * 255, rel=0.01)
    noise = [level.std(axis=(1, 2)).mean() for level in (dim, bright)]
    assert dark.std() > 0.5 and noise[0] > 0.5 and noise[1] > 1.5 * noise[0]


def test_as_many_nuclei_as_asked_for_and_more_images_sparse_than_dense():
    single = replace(LOOKS["large-blurred"], number=(1, 1))
    assert {lay_out(np.random.default_rng(n), MIN_SIZE, single).labels.max() for n in range(100)} == {1}
    wide = replace(LOOKS["small-sharp"], number=(2, 60), together=(0, 0))
    numbers = [len(lay_out(np.random.default_rng(n), 48, wide).spots) for n in range(40)]
    assert np.median(numbers) < 20  # an even draw from 2 to 60 would tend to 31, a logarithmic one to 11
    assert max(numbers) > 1.5 * np.median(numbers)


# ---- how hard, how fixed ----


def test_a_threshold_does_not_solve_it(mixed):
    assert 0.55 < best_otsu_iou(*mixed) < 0.75


def test_an_image_does_not_depend_on_how_many_are_drawn(mixed):
    for few, many in zip(draw_nuclei(10), mixed, strict=True):
        assert np.array_equal(few, many[:10])


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, r"count is 0; ask for at least 1 image"),
        ({"count": 2, "size": 15}, r"size is 15; nuclei need at least 16 pixels"),
        ({"count": 2, "seed": -1}, r"seed is -1; use 0 or more"),
        ({"count": 2, "look": "x-ray"}, r"look 'x-ray' is unknown; choose one of fluorescence, brightfield, tissue"),
        ({"count": 2, "look": ""}, r"look '' is unknown"),
    ],
)
def test_refusals_say_what_to_do(arguments, message):
    with pytest.raises(UserError, match=message):
        draw_nuclei(**arguments)
