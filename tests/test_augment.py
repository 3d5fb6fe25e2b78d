"""Random changes: image and mask move as one, all eight symmetries, and a batch is the sum of its parts."""

import pytest
import torch

from course_lib.train.augment import BRIGHTNESS, CONTRAST, SHIFT, Draw, apply, crop, draw, light, turn

PLAIN = {"flip": [False, False], "turn": False, "shift": [0.0, 0.0], "gain": [1.0] * 3, "offset": [0.0] * 3}


def drawn(*images):
    """A draw written by hand: one dict of what differs from nothing, for each image."""
    rows = [PLAIN | image for image in images]
    return Draw(**{field: torch.tensor([row[field] for row in rows]) for field in Draw._fields})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(count=6, size=(24, 24), seed=1):
    """Images whose channels are 0.2 + 0.6 * mask."""
    masks = (torch.rand(count, 1, *size, generator=generator(seed)) < 0.5).to(torch.uint8)
    return (0.2 + 0.6 * masks).expand(-1, 3, -1, -1).contiguous(), masks


@pytest.mark.parametrize("size", [(24, 24), (24, 36)])
def test_image_and_mask_move_together_under_every_light(size):
    images, masks = batch(40, size)
    changed, moved = apply(images, masks, draw(40, generator()))
    assert not torch.equal(moved, masks)
    for channel, mask in zip(changed.flatten(0, 1), moved.expand(-1, 3, -1, -1).flatten(0, 1), strict=True):
        inside, outside = channel[mask == 1], channel[mask == 0]
        assert inside.max() - inside.min() < 1e-5
        assert outside.max() - outside.min() < 1e-5
        assert inside.min() > outside.max()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32])
def test_types_and_values_are_kept_and_inputs_stay_as_they_are(dtype):
    images, masks = batch()
    masks = masks.to(dtype)
    before = images.clone(), masks.clone()
    changed, moved = apply(images, masks, draw(6, generator()))
    assert (changed.dtype, moved.dtype) == (torch.float32, dtype)
    assert (changed.shape, moved.shape) == (images.shape, masks.shape)
    assert moved.unique().tolist() == [0, 1]
    assert torch.equal(images, before[0]) and torch.equal(masks, before[1])


def test_nothing_drawn_nothing_done():
    images, masks = batch()
    same, unmoved = apply(images, masks, drawn(*[{}] * 6))
    torch.testing.assert_close(same, images)
    assert torch.equal(unmoved, masks)


# Symmetries

EIGHT = {
    (False, False, False): lambda x: x,
    (True, False, False): lambda x: x.flip(-2),
    (False, True, False): lambda x: x.flip(-1),
    (True, True, False): lambda x: torch.rot90(x, 2, (-2, -1)),
    (False, False, True): lambda x: x.transpose(-2, -1),
    (True, False, True): lambda x: torch.rot90(x, -1, (-2, -1)),
    (False, True, True): lambda x: torch.rot90(x, 1, (-2, -1)),
    (True, True, True): lambda x: torch.rot90(x, 2, (-2, -1)).transpose(-2, -1),
}


@pytest.mark.parametrize("which", EIGHT)
def test_each_symmetry_is_a_rotation_or_a_reflection(which):
    images = torch.rand(2, 3, 6, 6, generator=generator())
    found = turn(images, drawn(*[{"flip": list(which[:2]), "turn": which[2]}] * 2))
    assert torch.equal(found, EIGHT[which](images))


def test_all_eight_symmetries_are_drawn_about_equally():
    found = draw(4000, generator())
    kinds = 4 * found.flip[:, 0].int() + 2 * found.flip[:, 1] + found.turn
    shares = torch.bincount(kinds, minlength=8) / 4000
    assert ((shares - 1 / 8).abs() < 0.03).all()
    images = torch.rand(1, 1, 5, 5, generator=generator()).expand(4000, -1, -1, -1)
    assert len(turn(images, found).flatten(1).unique(dim=0)) == 8


def test_images_that_are_not_square_are_flipped_and_not_turned():
    images = torch.rand(2, 3, 4, 6, generator=generator())
    found = turn(images, drawn({"turn": True}, {"turn": True, "flip": [True, False]}))
    assert torch.equal(found, torch.stack([images[0], images[1].flip(-2)]))


# Shifts


def test_shifts_by_hand():
    """24 pixels reach 2 of the mirror image; the crop window moves down and right, so the content moves against it."""
    rows = torch.arange(24.0).expand(1, 1, 36, 24)  # value = column
    found = crop(rows, drawn({"shift": [0.0, 2.5 / 24]}))
    assert found[0, 0, 0].tolist() == [*range(2, 24), 22, 21]
    found = crop(rows, drawn({"shift": [0.0, -1.5 / 24]}))
    assert found[0, 0, 0].tolist() == [1, *range(23)]
    columns = torch.arange(36.0)[:, None].expand(1, 1, 36, 24)  # value = row
    assert crop(columns, drawn({"shift": [-3 / 36 + 1e-6, 0.0]}))[0, 0, :, 0].tolist() == [2, 1, *range(34)]


@pytest.mark.parametrize("size", [(24, 36), (12, 48), (5, 11), (96, 96)])
def test_shifts_are_bounded(size):
    """The middle of the image stays where it was, up to a twelfth of the side, at the ends of the range too."""
    place = torch.stack(torch.meshgrid(*(torch.arange(float(side)) for side in size), indexing="ij"))
    found = draw(200, generator())
    found.shift[:4] = SHIFT * torch.tensor([[1.0, 1], [-1, -1], [1, -1], [-1, 1]])
    middle = crop(place.expand(200, -1, -1, -1), found)[:, :, size[0] // 2, size[1] // 2]
    moved = middle - torch.tensor([size[0] // 2, size[1] // 2])
    reach = torch.tensor([size[0] // 12, size[1] // 12])
    assert (moved.abs() <= reach).all()
    assert torch.equal(moved.abs().amax(0).long(), reach)
    assert (moved.amin(0) == -reach).all()


# Light


def test_light_by_hand():
    image = torch.tensor([0.2, 0.4, 0.6, 0.8]).reshape(1, 1, 2, 2)  # mean 0.5, deviation the root of 0.05
    found = light(image, drawn({"gain": [1.5], "offset": [0.1]}))
    expected = torch.tensor([0.05, 0.35, 0.65, 0.95]).reshape(1, 1, 2, 2) + 0.1 * 0.05**0.5
    torch.testing.assert_close(found, expected)


def test_a_dark_image_keeps_what_it_shows():
    """No value is lost at 0 or 1: what was brighter stays brighter, at the far ends of what can be drawn."""
    dark = 0.05 * torch.rand(1, 3, 8, 8, generator=generator())
    found = light(dark, drawn({"gain": [1 - CONTRAST] * 3, "offset": [-BRIGHTNESS, BRIGHTNESS, -BRIGHTNESS]}))
    for before, after in zip(dark[0], found[0], strict=True):
        assert torch.equal(before.flatten().argsort(), after.flatten().argsort())
        assert (after.max() - after.min()) / (before.max() - before.min()) > 0.74
    assert (found - dark).abs().max() < 0.05  # a fixed 0.15 would be three times the whole range


@pytest.mark.parametrize("channels", [1, 3])
def test_light_is_each_channel_s_own(channels):
    images, changes = 0.3 + 0.4 * torch.rand(2, channels, 4, 6), draw(2, generator(), channels=channels)
    changed = light(images, changes)
    for n in range(2):
        for plain, gain, offset, new in zip(images[n], changes.gain[n], changes.offset[n], changed[n], strict=True):
            shift = offset * images[n].std(correction=0)
            torch.testing.assert_close(new, (plain - plain.mean()) * gain + plain.mean() + shift)


# What is drawn


def test_the_ranges_of_a_draw():
    found = draw(5000, generator())
    assert (found.flip.shape, found.shift.shape, found.turn.shape) == ((5000, 2), (5000, 2), (5000,))
    assert {field.device.type for field in found} == {"cpu"}
    for values, middle, reach in (
        (found.shift[:, 0], 0, SHIFT),
        (found.shift[:, 1], 0, SHIFT),
        (found.gain, 1, CONTRAST),
        (found.offset, 0, BRIGHTNESS),
    ):
        assert (values - middle).abs().max() <= reach * (1 + 1e-6)
        assert values.min() < middle - 0.99 * reach
        assert values.max() > middle + 0.99 * reach
        assert (values.mean() - middle).abs() < 0.05 * reach
    numbers = [*found.shift.T, *found.gain.T, *found.offset.T, *found.flip.T.float(), found.turn.float()]
    assert (torch.corrcoef(torch.stack(numbers)) - torch.eye(11)).abs().max() < 0.06  # each is drawn for itself


def test_same_state_same_batch_and_only_the_given_generator_is_used():
    images, masks = batch()
    state = torch.get_rng_state()
    one, other, third = (apply(images, masks, draw(6, generator(seed))) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], third[0])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("part", [slice(0, 2), slice(2, 6), slice(1, 6, 2)])
def test_a_part_of_the_batch_is_changed_as_in_the_whole(part):
    images, masks = batch()
    images = images + 0.1 * torch.rand(images.shape, generator=generator())
    found = draw(6, generator())
    whole, alone = apply(images, masks, found), apply(images[part], masks[part], found.part(part))
    assert all(torch.equal(a[part], b) for a, b in zip(whole, alone, strict=True))
