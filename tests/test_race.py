"""The race: what feeds the popular recipe, how entrants train, who passes the mark, and who holds the record."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Generator

from benchmarks import race
from benchmarks.race import RACE, RACE_GPU, Entrant, OneByOne, one_by_one, shrunk, train, whole_epoch
from course_lib.data import draw
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice
from course_lib.predict import as_input
from course_lib.results.race import POPULAR, above, standings
from course_lib.train import augment, batches
from tests.weights import same_weights

SPLITS = draw(60, 32, seed=3)


def tiny():
    torch.manual_seed(0)
    return NestedUNet(widths=(4, 6, 10))


def test_one_by_one_shows_every_image_once_and_leaves_out_what_fills_no_batch():
    fed = list(one_by_one(SPLITS.train, 8, 0, workers=0))
    assert len(SPLITS.train.ids) == 36 and len(fed) == 4
    for images, masks in fed:
        assert (images.shape, masks.shape) == ((8, 3, 32, 32), (8, 1, 32, 32))
        assert images.dtype == masks.dtype == torch.float32
        torch.testing.assert_close(images.mean(dim=(1, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    other = next(one_by_one(SPLITS.train, 8, 1, workers=0))
    assert not torch.equal(fed[0][0], other[0])


def test_loader_processes_change_nothing_and_no_two_images_alike():
    alone, shared = (list(one_by_one(SPLITS.train, 8, 0, workers=workers)) for workers in (0, 2))
    for ours, theirs in zip(alone, shared, strict=True):
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
    same = SPLITS.train._replace(images=SPLITS.train.images[:1].expand(36, -1, -1, -1))
    seen = torch.cat([images for images, _ in one_by_one(same, 8, 0, workers=2)])
    assert len(seen.unique(dim=0)) == len(seen)


def test_changes_hit_image_and_mask_alike():
    """An image that is its own mask stays so, whatever is drawn."""
    bright = SPLITS.train._replace(images=(255 * SPLITS.train.masks).repeat(1, 3, 1, 1))
    changed = OneByOne(bright, 0)
    assert len(changed) == 36
    turned = 0
    for n in range(8):
        image, mask = changed[n]
        assert torch.equal(image[0] > image[0].mean(), mask[0] > 0)
        turned += not torch.equal(mask, bright.masks[n].float())
    assert turned > 4


def feeds(size):
    yield one_by_one(SPLITS.train, size, 0, workers=0)
    yield whole_epoch(SPLITS.train, size, Generator().manual_seed(0), colours=True)


def test_both_feeds_show_the_same_images_where_nothing_is_changed(monkeypatch):
    """With changes switched off, each feed shows every image once, as `as_input` gives it, beside its own mask."""
    monkeypatch.setattr(augment, "apply", lambda images, masks, drawn: (images, masks))
    expected = as_input(SPLITS.train.images)
    for feed in feeds(9):
        images, masks = (torch.cat(part) for part in zip(*feed, strict=True))
        distance = torch.cdist(images.flatten(1), expected.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
        assert distance.min(1).values.max() < 1e-2 and sorted(distance.argmin(1).tolist()) == list(range(36))
        assert torch.equal(masks, SPLITS.train.masks[distance.argmin(1)].float())


def test_colours_can_be_left_as_they_are():
    grey = SPLITS.train._replace(images=SPLITS.train.images[:, :1].expand(-1, 3, -1, -1))
    for colours in (True, False):
        images = torch.cat([x for x, _ in whole_epoch(grey, 9, Generator().manual_seed(0), colours=colours)])
        assert ((images.amax(1) - images.amin(1)).max() > 0.1) == colours


def test_small_images_are_means_of_the_pixels_they_cover():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    assert shrunk(images, 2).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert shrunk(images, 4) is images


def test_the_popular_recipe_is_the_one_that_is_described(monkeypatch):
    """Ours by hand with the same batches: SGD, a cosine from epoch to epoch, the last head alone."""
    monkeypatch.setattr(race, "one_by_one", lambda part, batch, seed, **options: batches(
        part, batch, Generator().manual_seed(seed)))  # fmt: skip
    by_hand, entered = tiny(), tiny()
    optimiser = torch.optim.SGD(by_hand.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=4, eta_min=1e-5)
    for epoch in range(4):
        by_hand.train()
        for images, masks in batches(SPLITS.train, 16, Generator().manual_seed(1 + 1000 * epoch)):
            loss = bce_dice(by_hand(images)[-1], masks)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    rows = list(train(Entrant("", epochs=4, one_by_one=True), entered, SPLITS, 1))
    assert len(rows) == 4 and set(rows[0]) == {"val_iou", "seconds"}
    for ours, theirs in zip(by_hand.state_dict().values(), entered.state_dict().values(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


def test_an_entrant_learns_and_its_seed_decides():
    fast = Entrant("", epochs=12, batch=4, adamw=True, colours=False, sizes=(0.5, 1), heads=True)
    nets = [fast.net((4, 6, 10), 0) for _ in range(3)]
    assert len(nets[0].heads) == 2
    rows = [list(train(fast, net, SPLITS, seed)) for net, seed in zip(nets, (0, 0, 1), strict=True)]
    assert same_weights(*nets[:2]) and not same_weights(nets[0], nets[2])
    assert rows[0][-1]["val_iou"] > rows[0][0]["val_iou"] + 0.05


def test_sizes_are_taken_in_turn_and_validation_is_left_at_full_size(monkeypatch):
    seen = []
    net = tiny()
    net.register_forward_pre_hook(lambda net, inputs: seen.append((net.training, inputs[0].shape[-1])))
    list(train(Entrant("", epochs=4, batch=36, sizes=(0.25, 0.5)), net, SPLITS, 0))
    assert [side for training, side in seen if training] == [8, 8, 16, 16]
    assert {side for training, side in seen if not training} == {32}


@pytest.mark.parametrize("ladder", [RACE, RACE_GPU])
def test_entrants_begin_with_the_popular_recipe_and_change_one_thing_each(ladder):
    """Epochs, rates and batches may follow what was changed; of all else a step of the ladder changes one thing."""
    names = list(ladder)
    assert names[0] == POPULAR and ladder[POPULAR] == Entrant(ladder[POPULAR].changed, one_by_one=True)
    assert all(not entrant.one_by_one for name, entrant in ladder.items() if name != POPULAR)
    for before, after in itertools.pairwise(names[1:]):
        follow = {"changed", "epochs", "rate"}
        changed = [f for f in vars(ladder[after]) if f not in follow and
                   getattr(ladder[after], f) != getattr(ladder[before], f)]  # fmt: skip
        assert len(changed) <= 1 or changed == ["fast", "record"], after


def rows_of(**scores):
    """Runs with these last scores, the popular recipe's first."""
    return [
        {"entrant": name.replace("_", " "), "seed": seed, "val_iou": [0.1, score]}
        for name, runs in ({"popular_recipe": [0.70, 0.71, 0.69, 0.70, 0.70]} | scores).items()
        for seed, score in enumerate(runs)
    ]


def test_the_test_is_welchs_by_hand():
    ours = [0.72, 0.74, 0.73]
    a, b = 1e-4 / 3, 5e-5 / 5  # the variances of the two means
    t, degrees = (0.73 - 0.70) / math.sqrt(a + b), (a + b) ** 2 / (a**2 / 2 + b**2 / 4)
    assert above(rows_of(fast=ours), "fast") == pytest.approx(stats.t.sf(t, degrees))
    assert above(rows_of(fast=[0.8]), "fast") is None
    assert above(rows_of(low=[0.5, 0.6, 0.6]), "low") > 0.9


def test_a_record_passes_with_twenty_seeds_and_is_faster_than_all_before_it():
    noise = [0.001 * (seed % 3) for seed in range(20)]
    rows = rows_of(
        slow=[0.73 + n for n in noise],
        few=[0.73 + n for n in noise[:19]],  # a seed is missing
        equal=[0.699 + n for n in noise],  # its mean is the mark
        fast=[0.72 + n for n in noise],
        later=[0.74 + n for n in noise],  # passes, and is slower than the record
        untimed=[0.74 + n for n in noise],
    )
    seconds = {POPULAR: 100.0, "slow": 50.0, "few": 20.0, "equal": 10.0, "fast": 5.0, "later": 8.0}
    clock = [{"entrant": name, "seconds": value, "fresh": value + 1} for name, value in seconds.items()]
    lines = {line["entrant"]: line for line in standings(rows, clock)}
    assert list(lines) == [POPULAR, "slow", "few", "equal", "fast", "later", "untimed"]
    assert [line["passed"] for line in lines.values()] == ["sets it", "yes", "no", "no", "yes", "yes", "yes"]
    assert [line["record"] for line in lines.values()] == ["yes", "yes", "", "", "yes", "", ""]
    assert lines["fast"]["times as fast"] == 20 and lines["fast"]["fresh"] == 6
    assert lines[POPULAR]["IoU"] == pytest.approx(0.70) and lines[POPULAR]["p"] is None
    assert lines["few"]["seeds"] == 19 and lines["untimed"]["seconds"] is None
