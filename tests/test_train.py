"""The loop: what it yields, that it is the plain loop, that it resumes bit for bit, what it refuses."""

import functools
import itertools
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from course_lib.data import split
from course_lib.errors import UserError
from course_lib.grid import NestedUNet, VGGBlock
from course_lib.losses import bce_dice, lovasz_hinge
from course_lib.metrics import count, iou
from course_lib.predict import as_input, predict, probabilities, probability
from course_lib.predict.setting import Setting
from course_lib.relatives import RELATIVES
from course_lib.train import Recipe, augment, batches, evaluate, fit, loop, one_cycle, validate
from course_lib.train.checkpoint import load, save
from tests.weights import same_weights

WIDTHS = (4, 6, 10)


@pytest.fixture(scope="module")
def splits():
    """Bright squares on a dark ground: 35 images of 16x16."""
    rng = np.random.default_rng(0)
    labels = np.zeros((35, 16, 16), np.int32)
    for n, (y, x) in enumerate(rng.integers(1, 9, (35, 2))):
        labels[n, y : y + 6, x : x + 5] = 1
    images = np.clip(60 + 120 * labels + rng.normal(0, 20, labels.shape), 0, 255).astype(np.uint8)
    return split(np.stack([images] * 3, axis=-1), labels, ids=[f"square-{n}" for n in range(35)])


def make(seed=0, **options):
    torch.manual_seed(seed)
    return NestedUNet(widths=WIDTHS, **({"deep_supervision": True} | options))


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_row_an_epoch_once_and_from_then_on_out_of_the_checkpoint(splits, tmp_path):
    path, net, rows, again = tmp_path / "checkpoint.pt", make(), [], make()
    for row in fit(net, splits, epochs=2, checkpoint=path):
        assert list(row) == ["epoch", "loss", "val_iou", "val_dice", "lr", "seconds"]
        assert not net.training
        rows.append(row)
    assert [row["epoch"] for row in rows] == [1, 2]
    before = path.read_bytes()
    assert list(fit(again, splits, epochs=2, checkpoint=path)) == rows
    assert path.read_bytes() == before and same_weights(net, again) and not again.training


@pytest.mark.parametrize("wiring", ["unet", "unet-e", "unet+", "unet++"])
def test_every_wiring_learns_the_squares(splits, wiring):
    net = make(wiring=wiring, deep_supervision=wiring != "unet")
    rows = list(fit(net, splits, epochs=20, recipe=Recipe(batch_size=4, lr=1e-2)))
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[-1]["val_iou"] > 0.8


def test_fit_is_the_plain_loop(splits):
    """The same net, written out without anything of `fit`, ends with the same weights and losses."""
    recipe, epochs = Recipe(batch_size=5, seed=7), 3
    plain, images, masks = make(), splits.train.images, splits.train.masks
    optimiser = torch.optim.AdamW(plain.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, eps=1e-5)
    schedule = LambdaLR(optimiser, lambda step: one_cycle(step / (epochs * (len(images) // 5))))
    generator, means = torch.Generator().manual_seed(7), []
    for _ in range(epochs):
        plain.train()
        order, losses = torch.randperm(len(images), generator=generator), []
        for start in range(0, len(images) - 4, 5):
            chosen = order[start : start + 5]
            x, y = augment.apply(images[chosen] / 255, masks[chosen].float(), augment.draw(5, generator))
            x = (x - x.mean((1, 2, 3), True)) / (x.std((1, 2, 3), correction=0, keepdim=True) + 0.02)
            loss = sum(bce_dice(logits, y) for logits in plain(x)) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    net = make()
    rows = list(fit(net, splits, epochs=epochs, recipe=recipe))
    assert [row["loss"] for row in rows] == pytest.approx(means, abs=1e-6)
    assert same_weights(net, plain)


def test_validation_scores_are_pooled_scores_of_the_mean_of_heads(splits):
    net = make()
    row = list(fit(net, splits, epochs=8, recipe=Recipe(batch_size=4)))[-1]
    with torch.no_grad():
        mean = torch.stack([logits.sigmoid() for logits in net(as_input(splits.val.images))]).mean(0)
    found = count(mean > 0.5, splits.val.masks)
    assert row["val_iou"] == pytest.approx(iou(found.pooled()).item())
    assert row["val_iou"] != pytest.approx(iou(found).mean().item())
    assert evaluate(net, splits.val)["iou_pooled"] == pytest.approx(row["val_iou"])
    assert evaluate(net, splits.val, head=1)["iou_pooled"] != pytest.approx(row["val_iou"])


def test_validation_counts_every_batch_of_images(splits):
    net, times = make().eval(), 10
    many = splits.val._replace(
        images=splits.val.images.repeat(times, 1, 1, 1), masks=splits.val.masks.repeat(times, 1, 1, 1)
    )
    assert len(many.images) > 64  # three batches
    once = validate(net, splits.val, Setting())
    assert [int(n) for n in validate(net, many, Setting())] == [times * int(n) for n in once]


def test_validation_takes_as_many_images_as_pixels_fit(splits, monkeypatch):
    net, seen = make(), []
    net.register_forward_pre_hook(lambda net, inputs: seen.append(len(inputs[0])))
    by_default = validate(net, splits.val, Setting())
    monkeypatch.setitem(loop.VALIDATED, "cpu", 3 * 16 * 16)
    found = validate(net, splits.val, Setting())
    count = len(splits.val.images)
    assert seen == [count] + [3] * (count // 3) + [count % 3] * (count % 3 > 0)
    assert [int(n) for n in found] == [int(n) for n in by_default]


def test_batches_cover_the_data_once_and_drop_the_incomplete_one(splits):
    part = splits.train
    seen = torch.cat([images for images, _ in batches(part, 4, torch.Generator().manual_seed(0), augmented=False)])
    assert len(seen) == len(part.ids) // 4 * 4
    assert seen.mean(dim=(1, 2, 3)).abs().max() < 1e-5 and (seen.std(dim=(1, 2, 3)) - 1).abs().max() < 0.2
    known = as_input(part.images)
    nearest = (seen[:, None] - known[None]).abs().amax(dim=(2, 3, 4)).min(dim=1)
    assert nearest.values.max() < 1e-5 and len(nearest.indices.unique()) == len(seen)


def test_one_cycle_rises_and_falls_to_zero():
    values = [one_cycle(n / 100) for n in range(101)]
    assert max(values) == values[20] == 1 and values[100] == pytest.approx(0, abs=1e-12)
    assert values[:21] == sorted(values[:21]) and values[20:] == sorted(values[20:], reverse=True)


def test_weights_only_change_in_rounding_with_the_setting(splits):
    plain, laid_out = make(), make()
    rows = [list(fit(net, splits, epochs=1, setting=setting)) for net, setting in
            ((plain, Setting()), (laid_out, Setting(channels_last=True)))]  # fmt: skip
    assert rows[0][0]["loss"] == pytest.approx(rows[1][0]["loss"], abs=1e-4)


@pytest.mark.parametrize("setting", [Setting(), Setting(precision="bf16", channels_last=True)])
@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_run_resumed_from_its_checkpoint_ends_bit_identical(splits, tmp_path, setting, stop_after):
    whole, path = make(), tmp_path / "run" / "checkpoint.pt"
    rows = list(fit(whole, splits, epochs=3, setting=setting))
    stopped = fit(make(), splits, epochs=3, setting=setting, checkpoint=path)
    list(itertools.islice(stopped, stop_after))
    stopped.close()
    torch.manual_seed(99)  # a new process has another random state, and its own weights until it loads
    resumed = make(seed=5)
    again = list(fit(resumed, splits, epochs=3, setting=setting, checkpoint=path))
    assert same_weights(whole, resumed)
    assert without_seconds(again) == without_seconds(rows)


def changed(splits, **fields):
    return splits._replace(train=splits.train._replace(**{k: change(splits.train) for k, change in fields.items()}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 3}, "epochs was 2, is 3"),
        ({"recipe": Recipe(seed=1)}, "seed was 0, is 1"),
        ({"recipe": Recipe(lr=1e-3)}, "lr was 0.003, is 0.001"),
        ({"recipe": Recipe(loss=lovasz_hinge)}, "loss was bce_dice, is lovasz_hinge"),
        ({"setting": Setting(precision="bf16")}, "precision was fp32, is bf16"),
        ({"net": lambda: make(wiring="unet-e")}, r"net was NestedUNet of .*unet\+\+.*, is .*unet-e"),
        ({"net": lambda: RELATIVES["attention-unet++"](widths=WIDTHS)}, "net was NestedUNet .*, is AttentionUNetPlus"),
        ({"net": lambda: nn.Conv2d(3, 1, 1)}, "net was NestedUNet .*, is Conv2d of 4 parameters"),
        ({"ids": lambda part: [f"{name}x" for name in part.ids]}, "data was"),
        ({"masks": lambda part: 1 - part.masks}, "data was"),  # corrected under their old names
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(splits, tmp_path, change, named):
    path = tmp_path / "checkpoint.pt"
    list(fit(make(), splits, epochs=2, checkpoint=path))
    data = changed(splits, **{name: change.pop(name) for name in ("ids", "masks") if name in change})
    net = change.pop("net", make)()
    with pytest.raises(UserError, match=rf"checkpoint\.pt is of another run \({named}.*\): repeat that run"):
        next(fit(net, data, **({"epochs": 2} | change), checkpoint=path))


@pytest.mark.parametrize("content", [b"not a checkpoint", 2000, {"net": {}}, {"run": 5}])
def test_a_file_that_is_no_checkpoint_is_refused_in_a_sentence(splits, tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    list(fit(make(), splits, epochs=1, checkpoint=path))
    if isinstance(content, dict):
        save(content, path)
    else:
        path.write_bytes(path.read_bytes()[:content] if isinstance(content, int) else content)
    said = "no checkpoint of a training: choose" if isinstance(content, dict) else "damaged"
    with pytest.raises(UserError, match=rf"checkpoint\.pt is {said}"):
        next(fit(make(), splits, epochs=1, checkpoint=path))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(splits, tmp_path):
    def breaks(logits, target):
        breaks.calls += 1
        return bce_dice(logits, target) * (float("nan") if breaks.calls == 2 * 2 + 2 + 1 else 1)

    breaks.calls, path, kept = 0, tmp_path / "checkpoint.pt", None
    recipe = Recipe(batch_size=10, loss=breaks)  # 2 batches an epoch, 2 heads: call 7 is epoch 2, batch 2
    with pytest.raises(UserError, match="epoch 2 at batch 2"):
        for _ in fit(make(), splits, epochs=3, recipe=recipe, checkpoint=path):
            kept = path.read_bytes()
    assert path.read_bytes() == kept


def test_batch_norm_of_one_value_is_refused_before_training(splits):
    """16x16 pixels halved four times are one: a batch of two fits, a batch of one does not."""
    one, deep = Recipe(batch_size=1), (2, 2, 2, 2, 2)
    with pytest.raises(UserError, match="a batch of 1 leaves one in the lowest row: use a larger batch_size"):
        next(fit(NestedUNet(widths=deep), splits, recipe=one))
    next(fit(NestedUNet(widths=deep), splits, recipe=Recipe(batch_size=2)))
    next(fit(NestedUNet(widths=WIDTHS), splits, recipe=one))
    bare = NestedUNet(widths=deep)
    for i, j in bare.nodes:
        bare.node(i, j).bn1 = bare.node(i, j).bn2 = nn.Identity()
    next(fit(bare, splits, recipe=one))  # no norm, no need
    unknown = nn.Sequential(nn.Conv2d(3, 1, 16), nn.BatchNorm2d(1))
    with pytest.raises(ValueError, match="more than 1 value"):  # torch says it
        next(fit(unknown, splits, recipe=one))


def test_a_plain_net_that_returns_one_tensor_trains_too(splits):
    rows = list(fit(nn.Conv2d(3, 1, 3, padding=1), splits, epochs=2))
    assert rows[1]["loss"] < rows[0]["loss"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_on_a_gpu_learns_the_squares(splits, precision, record):
    rows = list(fit(make(), splits, epochs=20, recipe=Recipe(batch_size=4, lr=1e-2),
                    setting=Setting("cuda", precision, channels_last=True, record=record)))  # fmt: skip
    assert rows[-1]["val_iou"] > 0.8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_recorded_training_is_eager_training_and_goes_on(splits, tmp_path, monkeypatch):
    """With deterministic kernels the weights are equal bit for bit, also behind a stop."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    recorded, path, nets = Setting("cuda", record=True), tmp_path / "c.pt", []
    for setting in (Setting("cuda"), recorded):
        nets.append(make())
        list(fit(nets[-1], splits, epochs=4, recipe=Recipe(batch_size=4), setting=setting))
    assert same_weights(*nets)
    next(fit(make(), splits, epochs=4, recipe=Recipe(batch_size=4), setting=recorded, checkpoint=path))
    stopped = make()
    list(fit(stopped, splits, epochs=4, recipe=Recipe(batch_size=4), setting=recorded, checkpoint=path))
    torch.use_deterministic_algorithms(False)
    assert same_weights(stopped, nets[1])
    maps = [probabilities(nets[1], splits.val.images, setting=setting) for setting in (Setting("cuda"), recorded)]
    assert maps[0].allclose(maps[1], atol=1e-5)


class Weighted(nn.Module):
    """A loss with a state."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))

    def forward(self, logits, target):
        return self.weight * bce_dice(logits, target)


def scaled(by):
    return lambda logits, target: by * bce_dice(logits, target)


LOSSES = [scaled(1.0), scaled(2.0), lambda logits, target: bce_dice(logits, target) + 1, Weighted(1.0), Weighted(3.0)]
LOSSES += [functools.partial(nn.functional.binary_cross_entropy_with_logits, reduction=how) for how in ("mean", "sum")]


@pytest.mark.parametrize("loss", LOSSES)
def test_another_loss_is_another_run_and_the_same_goes_on(splits, tmp_path, loss):
    path, recipe = tmp_path / "c.pt", Recipe(loss=loss)
    rows = list(fit(make(), splits, epochs=1, recipe=recipe, checkpoint=path))
    assert list(fit(make(), splits, epochs=1, recipe=recipe, checkpoint=path)) == rows
    for other in (one for one in (*LOSSES, bce_dice) if one is not loss):
        with pytest.raises(UserError, match=r"is of another run \(loss was"):
            next(fit(make(), splits, epochs=1, recipe=Recipe(loss=other), checkpoint=path))


def test_another_forward_is_another_run(splits, tmp_path):
    class Mine(nn.Conv2d):
        def forward(self, x):
            return super().forward(x)

    first, path = Mine(3, 1, 3, padding=1), tmp_path / "c.pt"
    list(fit(first, splits, epochs=1, checkpoint=path))
    Mine.forward = lambda self, x: 2 * nn.Conv2d.forward(self, x)
    with pytest.raises(UserError, match=r"is of another run \(net was \S*Mine"):
        next(fit(Mine(3, 1, 3, padding=1), splits, epochs=1, checkpoint=path))


def test_another_block_of_the_same_weights_is_another_run(splits, tmp_path):
    class Block(VGGBlock):
        def forward(self, x):
            return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))

    class Mine(NestedUNet):
        block = Block

    list(fit(Mine(widths=WIDTHS), splits, epochs=1, checkpoint=tmp_path / "c.pt"))
    Block.forward = lambda self, x: VGGBlock.forward(self, x)
    with pytest.raises(UserError, match=r"is of another run \(net was \S*Mine"):
        next(fit(Mine(widths=WIDTHS), splits, epochs=1, checkpoint=tmp_path / "c.pt"))


def test_numbers_of_numpy_train_and_go_on(splits, tmp_path):
    recipe = Recipe(batch_size=np.int64(8), lr=np.float32(1e-3), weight_decay=np.float64(0.01), seed=np.uint8(3))
    assert {type(getattr(recipe, name)) for name in ("batch_size", "lr", "weight_decay", "seed")} == {int, float}
    rows = list(fit(make(), splits, epochs=np.int32(1), recipe=recipe, checkpoint=tmp_path / "c.pt"))
    assert list(fit(make(), splits, epochs=1, recipe=recipe, checkpoint=tmp_path / "c.pt")) == rows
    with pytest.raises(UserError, match="lr is of type Thread"):
        Recipe(lr=threading.Thread())
    for name, value in {
        "lr": "1",
        "eps": 10**400,
        "batch_size": 8.0,
        "seed": -1,
        "augment": "no",
        "weight_decay": float("nan"),
    }.items():
        with pytest.raises(UserError, match=rf"^{name} is .*: (give a number of type|leave it out)"):
            Recipe(**{name: value})
    for epochs in (2.0, "2", -1, True, None):
        with pytest.raises(UserError, match=r"^epochs is .*: give a whole number"):
            next(fit(make(), splits, epochs=epochs))


def test_a_wrapped_net_goes_on_where_the_net_itself_was(splits, tmp_path):
    rows = list(fit(make(), splits, epochs=2, checkpoint=tmp_path / "c.pt"))
    for wrap in (nn.DataParallel, torch.compile):
        net = make()
        assert list(fit(wrap(net), splits, epochs=2, checkpoint=tmp_path / "c.pt")) == rows
        assert evaluate(nn.DataParallel(net), splits.val) == evaluate(net, splits.val)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("generator", None),
        ("generator", torch.zeros(5056, dtype=torch.uint8)),
        ("rows", [{"epoch": 1}]),
        ("rows", None),
        ("rows", [{"epoch": 2, "loss": 1.0, "val_iou": 1.0, "val_dice": 1.0, "lr": 1.0, "seconds": 1.0}]),
        ("optimiser", {"state": {}}),
        ("optimiser", {"state": {0: {"step": 1}}, "param_groups": []}),
        ("schedule", {"last_epoch": "one"}),
        ("net", {"conv0_0.conv1.weight": torch.zeros(1)}),
        ("scaler", 3),
    ],
)
def test_a_checkpoint_that_cannot_be_of_this_training_changes_nothing(splits, tmp_path, part, value):
    path, net = tmp_path / "c.pt", make()
    next(fit(make(), splits, epochs=2, checkpoint=path))
    save(load(path) | {part: value}, path)
    with pytest.raises(
        UserError, match=rf"c\.pt is damaged: its {part} cannot be of this training: delete it to begin"
    ):
        next(fit(net, splits, epochs=2, checkpoint=path))
    assert same_weights(net, make())


def test_data_of_other_classes_or_channels_are_refused(splits):
    for options, numbers in (({"classes": 2}, "3 and 2"), ({"in_channels": 1}, "1 and 1")):
        with pytest.raises(
            UserError, match=rf"3 channel\(s\) and 1 class\(es\), and the net takes {numbers}: make a net"
        ):
            next(fit(make(**options), splits, epochs=1))


@pytest.mark.parametrize("inputs", ["scaled", "imagenet"])
def test_a_net_is_trained_and_scored_on_images_prepared_as_it_says(splits, inputs):
    net = make()
    net.inputs = inputs
    seen = []
    net.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    list(fit(net, splits, epochs=1, recipe=Recipe(augment=False)))
    pixel = splits.val.images.float() / 255
    prepared = pixel if inputs == "scaled" else (pixel - 0.449) / 0.226
    assert torch.equal(seen[-1], as_input(splits.val.images, inputs)[-len(seen[-1]) :])
    assert all((batch.mean() - prepared.mean()).abs() < 0.3 for batch in seen)
    whole = predict(net, splits.val.images[0], tile=8, overlap=4)
    direct = probability(net.eval()(as_input(splits.val.images[:1], inputs)))[0]
    assert predict(net, splits.val.images[0]).allclose(direct, atol=1e-6)
    assert (
        net.prune(1).inputs == inputs
        and (whole - direct).abs().mean() < 0.2
        and probabilities(net, splits.val.images[:1])[0].allclose(direct, atol=1e-6)
    )


@pytest.mark.parametrize("augmented", [True, False])
def test_batches_made_together_are_those_made_one_by_one(splits, monkeypatch, augmented):
    """As on a GPU, bit for bit, and the random numbers go on from the same place."""
    made, states = [], []
    for at_once in (1, 10, 24, 1024):
        monkeypatch.setitem(loop.AT_ONCE, "cpu", at_once)
        generator = torch.Generator().manual_seed(4)
        made.append([pair for _ in range(2) for pair in batches(splits.train, 4, generator, augmented=augmented)])
        states.append(generator.get_state())
    for other in made[1:]:
        assert len(other) == len(made[0]) == 2 * (len(splits.train.ids) // 4)
        assert all(
            torch.equal(a, b) for one, two in zip(made[0], other, strict=True) for a, b in zip(one, two, strict=True)
        )
    assert all(torch.equal(states[0], state) for state in states)
