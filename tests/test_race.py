"""The race: what feeds the popular recipe, when an entrant passes the mark, and who holds the record."""

import pytest
import torch
from torch import Generator

from benchmarks.race import RACE, Entrant, OneByOne, one_by_one, popular
from course_lib.data import draw
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice
from course_lib.predict import as_input
from course_lib.results.race import POPULAR, mark_of, seconds_to, standings
from course_lib.train import Recipe, augment, batches
from tests.weights import same_weights

SPLITS = draw(60, 32, seed=3)


def tiny():
    torch.manual_seed(0)
    return NestedUNet(widths=(4, 6, 10))


def test_one_by_one_shows_every_image_once_and_leaves_out_what_fills_no_batch():
    fed = list(one_by_one(SPLITS.train, 8, Generator().manual_seed(0)))
    assert len(SPLITS.train.ids) == 36 and len(fed) == 4
    for images, masks in fed:
        assert (images.shape, masks.shape) == ((8, 3, 32, 32), (8, 1, 32, 32))
        assert images.dtype == masks.dtype == torch.float32
        torch.testing.assert_close(images.mean(dim=(1, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    again = list(one_by_one(SPLITS.train, 8, Generator().manual_seed(0)))
    assert all(
        torch.equal(ours, theirs) for a, b in zip(fed, again, strict=True) for ours, theirs in zip(a, b, strict=True)
    )
    other = next(one_by_one(SPLITS.train, 8, Generator().manual_seed(1)))
    assert not torch.equal(fed[0][0], other[0])


def test_changes_hit_image_and_mask_alike():
    """An image that is its own mask stays so, whatever is drawn."""
    bright = SPLITS.train._replace(images=(255 * SPLITS.train.masks).repeat(1, 3, 1, 1))
    changed = OneByOne(bright, Generator().manual_seed(0))
    assert len(changed) == 36
    turned = 0
    for n in range(8):
        image, mask = changed[n]
        assert torch.equal(image[0] > image[0].mean(), mask[0] > 0)
        turned += not torch.equal(mask, bright.masks[n].float())
    assert turned > 4


def test_both_feeds_show_the_same_images_where_nothing_is_changed(monkeypatch):
    """With changes switched off, each feed shows every image once, as `as_input` gives it, beside its own mask."""
    monkeypatch.setattr(augment, "apply", lambda images, masks, drawn: (images, masks))
    expected = as_input(SPLITS.train.images)
    for feed in (one_by_one, batches):
        images, masks = (
            torch.cat(part) for part in zip(*feed(SPLITS.train, 9, Generator().manual_seed(0)), strict=True)
        )
        distance = torch.cdist(images.flatten(1), expected.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
        assert distance.min(1).values.max() < 1e-2 and sorted(distance.argmin(1).tolist()) == list(range(36))
        assert torch.equal(masks, SPLITS.train.masks[distance.argmin(1)].float())


def test_the_popular_recipe_is_the_one_that_is_described():
    net, rows = tiny(), list(popular(tiny(), SPLITS, epochs=4, seed=1))
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    middle = 1e-5 + (1e-3 - 1e-5) / 2
    assert [rows[0]["lr"], rows[2]["lr"]] == pytest.approx([1e-3, middle])
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    losses, generator = [], Generator().manual_seed(1)
    for images, masks in batches(SPLITS.train, 16, generator):
        net.train()
        loss = bce_dice(net(images)[-1], masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    by_batches = list(popular(tiny(), SPLITS, epochs=4, seed=1, feed=batches))
    assert by_batches[0]["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_it_learns():
    rows = list(popular(tiny(), SPLITS, epochs=15))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.01


def test_an_entrant_trains_as_it_says():
    by_hand, entered = tiny(), tiny()
    list(popular(by_hand, SPLITS, epochs=1, seed=5, feed=batches))
    list(Entrant("", epochs=1).train(entered, SPLITS, 5))
    assert same_weights(by_hand, entered)
    rows = list(Entrant("", epochs=3, recipe=Recipe(batch_size=4, lr=1e-4)).train(tiny(), SPLITS, 5))
    assert len(rows) == 3 and max(row["lr"] for row in rows) < 1e-4


def test_entrants_begin_with_the_popular_recipe_and_change_one_thing_each():
    names = list(RACE)
    assert names[0] == POPULAR and RACE[POPULAR].feed is one_by_one and RACE[POPULAR].epochs == 100
    assert not RACE[POPULAR].fast and RACE[POPULAR].recipe is None
    assert all(entrant.feed is batches for name, entrant in RACE.items() if name != POPULAR)


def run(entrant, seed, val_iou, seconds):
    return {
        "entrant": entrant,
        "seed": seed,
        "epochs": len(val_iou),
        "val_iou": val_iou,
        "seconds_of_epochs": seconds,
    } | {"seconds": sum(seconds)}


def race_of(**entrants):
    """Rows of two seeds each; entrants not named miss the mark."""
    rows = [run(POPULAR, 0, [0.5, 0.8], [10.0, 10.0]), run(POPULAR, 1, [0.9, 0.6], [10.0, 12.0])]
    for name in list(RACE)[1:]:
        runs = entrants.get(name.replace(" ", "_").replace("-", "_"), [([0.1], [1.0])] * 2)
        rows += [run(name, seed, *values) for seed, values in enumerate(runs)]
    return rows


def test_the_mark_is_where_the_popular_recipe_ends_on_average():
    assert mark_of(race_of()) == pytest.approx(0.7)


def test_seconds_count_up_to_the_first_epoch_that_passes():
    row = run("AdamW", 0, [0.5, 0.7, 0.6, 0.9], [1.0, 2.0, 4.0, 8.0])
    assert [seconds_to(mark, row) for mark in (0.4, 0.7, 0.71, 0.91)] == [1.0, 3.0, 15.0, None]


def test_a_record_is_faster_than_all_before_it_and_passed_with_every_seed():
    lines = standings(
        race_of(
            whole_batches=[([0.2, 0.7], [9.0, 9.0]), ([0.7, 0.7], [9.0, 9.0])],  # 18 and 9 seconds
            AdamW=[([0.8], [1.0]), ([0.6], [1.0])],  # fast, and one seed misses
            fast_setting=[([0.8], [14.0]), ([0.8], [15.0])],  # slower than the record
            short=[([0.8], [5.0]), ([0.9], [7.0])],
        )
    )
    by_name = {line["entrant"]: line for line in lines}
    assert list(by_name) == list(RACE)
    assert by_name[POPULAR]["seconds"] == 21.0 and by_name[POPULAR]["record"] == "yes"
    assert by_name[POPULAR]["passed"] == "sets it" and by_name["short"]["times as fast"] == pytest.approx(3.5)
    assert by_name["AdamW"]["times as fast"] is None
    assert (by_name["whole batches"]["seconds"], by_name["whole batches"]["record"]) == (13.5, "yes")
    assert (by_name["AdamW"]["seconds"], by_name["AdamW"]["passed"], by_name["AdamW"]["record"]) == (None, "1 of 2", "")
    assert (by_name["fast setting"]["seconds"], by_name["fast setting"]["record"]) == (14.5, "")
    assert (by_name["short"]["seconds"], by_name["short"]["record"]) == (6.0, "yes")
    assert by_name["short"]["spread"] == pytest.approx(2**0.5)
    assert by_name["short"]["last IoU"] == pytest.approx(0.85)
    assert by_name["U-Net"]["passed"] == "0 of 2" and by_name["U-Net"]["seconds"] is None
