"""What a learner on Colab is told, where trainings are kept, and that they go on after a disconnect."""

import sys
from types import ModuleType

import pytest
import torch

from course_lib import train
from course_lib.data import Split, Splits
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.lesson import colab
from course_lib.losses import bce_dice
from course_lib.predict import as_input
from course_lib.predict.setting import Setting
from course_lib.train import Recipe, fit
from course_lib.train.checkpoint import same_weights
from course_lib.train.runs import seen


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """A laptop without a GPU, whatever runs the tests."""
    monkeypatch.delenv(colab.VARIABLE, raising=False)
    monkeypatch.delenv("COURSE_PRESET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive")


@pytest.fixture
def on_colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))


def test_a_laptop_is_told_its_preset_and_keeps_nothing():
    assert colab.notice() == 'No GPU on this machine: "auto" is the preset laptop here.'
    assert colab.run_folder() is None


def test_colab_without_a_gpu_is_told_what_to_click(on_colab):
    first, clicks, second = colab.notice().splitlines()
    assert first == 'No GPU is attached, and the lessons run without one: "auto" is the preset laptop here.'
    assert clicks == "For larger trainings click Runtime, Change runtime type, T4 GPU, Save, then run from the top."
    assert second.startswith("A disconnect loses what was trained.") and second.endswith(colab.MOUNT)
    assert colab.run_folder().as_posix() == "runs"


def test_colab_with_a_gpu_is_told_which(on_colab, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert colab.notice().splitlines()[0] == 'Tesla T4: "auto" is the preset gpu here.'


def test_a_mounted_drive_keeps_trainings(on_colab, tmp_path):
    (tmp_path / "drive").mkdir()
    folder = tmp_path / "drive" / "unetpp-course"
    assert colab.run_folder() == folder
    assert colab.notice().splitlines()[2] == f"Trainings are kept in {folder} and go on where they stopped."
    assert not folder.exists()  # to look makes nothing


def test_a_drive_counts_on_colab_only(tmp_path):
    (tmp_path / "drive").mkdir()
    assert colab.run_folder() is None


def test_the_variable_goes_first(on_colab, monkeypatch, tmp_path):
    (tmp_path / "drive").mkdir()
    monkeypatch.setenv(colab.VARIABLE, str(tmp_path / "mine"))
    assert colab.run_folder() == tmp_path / "mine"
    assert f"kept in {tmp_path / 'mine'}" in colab.notice()


def test_progress_is_taken_home_from_colab(on_colab, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "ada.jsonl")
    assert colab.notice().splitlines()[-1].endswith("files.download('ada.jsonl')")


def test_a_wrong_preset_is_named_by_the_first_cell(monkeypatch):
    monkeypatch.setenv("COURSE_PRESET", "big")
    with pytest.raises(UserError, match="preset 'big' is unknown"):
        colab.notice()


# Trainings in a folder


@pytest.fixture
def splits():
    generator = torch.Generator().manual_seed(3)

    def part(count):
        images = torch.randint(0, 256, (count, 3, 16, 24), generator=generator, dtype=torch.uint8)
        masks = (images[:, :1] > 128).to(torch.uint8)
        return Split(images, masks, masks[:, 0].int(), [f"n{n}" for n in range(count)])

    return Splits(part(8), part(4), part(4))


def make(seed=0, kind=NestedUNet, **options):
    torch.manual_seed(seed)
    return kind(widths=(4, 6, 10), **options)


def names(folder):
    return sorted(path.name for path in folder.glob("*.pt"))


def test_a_training_goes_on_bit_for_bit(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "PAUSE", 0)
    whole, cut = make(), make()
    rows = list(fit(whole, splits, epochs=4, runs=tmp_path))
    for path in tmp_path.iterdir():
        path.unlink()
    stopped = fit(cut, splits, epochs=4, runs=tmp_path)
    next(stopped), next(stopped)
    stopped.close()
    again = make()
    resumed = list(fit(again, splits, epochs=4, runs=tmp_path))
    assert [row["loss"] for row in resumed] == [row["loss"] for row in rows]
    assert same_weights(again, whole)
    assert len(names(tmp_path)) == 1


class Other(NestedUNet):
    """The same weights, another forward."""

    def forward(self, image):
        return [logits + 1 for logits in super().forward(image)]


class WithoutSkip(NestedUNet):
    """One of its skips carries zeros, which changes little before training."""

    row = 0

    def __init__(self, **options):
        super().__init__(**options)
        self.node(self.row, self.depth - self.row).register_forward_pre_hook(self.cut)

    def cut(self, block, inputs):
        skip, up = inputs[0].split([self.config["widths"][self.row], self.config["widths"][self.row + 1]], dim=1)
        return torch.cat([torch.zeros_like(skip), up], dim=1)


class WithoutLowerSkip(WithoutSkip):
    row = 1


class WithoutNorms(NestedUNet):
    """Before training a norm in evaluation changes nothing."""

    def __init__(self, **options):
        super().__init__(**options)
        self.node(0, self.depth).bn1 = torch.nn.Identity()


def bce_dice_of_another_kind(logits, masks):
    return 2 * bce_dice(logits, masks)


bce_dice_of_another_kind.__name__ = "bce_dice"  # an edited loss keeps its name


@pytest.mark.parametrize(
    ("net", "options"),
    [
        (lambda: make(seed=1), {}),
        (lambda: make(wiring="unet"), {}),
        (lambda: make(deep_supervision=True), {}),
        (lambda: make(kind=Other), {}),
        (make, {"seed": 1}),
        (make, {"epochs": 2}),
        (make, {"recipe": Recipe(lr=1e-4)}),
        (make, {"recipe": Recipe(loss=bce_dice_of_another_kind)}),
        (make, {"setting": Setting(channels_last=True)}),
    ],
)
def test_another_training_has_a_file_of_its_own(splits, tmp_path, net, options):
    list(fit(make(), splits, epochs=1, runs=tmp_path))
    list(fit(make(), splits, epochs=1, runs=tmp_path))
    assert len(names(tmp_path)) == 1
    list(fit(net(), splits, **({"epochs": 1, "runs": tmp_path} | options)))
    assert len(names(tmp_path)) == 2


def test_nets_that_differ_little_before_training_are_told_apart(splits, tmp_path):
    """The cuts of lesson 04 and the norms of lesson 11: each goes on where it stopped, and only there."""
    kinds = (NestedUNet, WithoutSkip, WithoutLowerSkip, WithoutNorms)
    first = [
        [row["loss"] for row in fit(make(kind=kind, wiring="unet"), splits, epochs=2, runs=tmp_path)] for kind in kinds
    ]
    assert len(names(tmp_path)) == 4
    again = [
        [row["loss"] for row in fit(make(kind=kind, wiring="unet"), splits, epochs=2, runs=tmp_path)] for kind in kinds
    ]
    plain = [[row["loss"] for row in fit(make(kind=kind, wiring="unet"), splits, epochs=2)] for kind in kinds]
    assert first == again == plain and len(names(tmp_path)) == 4


def test_another_processor_goes_on_with_the_same_training(splits, tmp_path):
    """Its sums differ in the last digits."""
    list(fit(make(), splits, epochs=1, runs=tmp_path))
    other = make()
    with torch.no_grad():
        for value in other.parameters():
            value *= 1 + 2e-6
    list(fit(other, splits, epochs=1, runs=tmp_path))
    assert len(names(tmp_path)) == 1


def test_looking_at_a_net_leaves_it_as_it_is(splits):
    net, other = make().train(), make()
    state = torch.get_rng_state()
    images = as_input(splits.train.images)
    first = seen(net, images, splits.train.masks.float(), bce_dice)
    assert torch.equal(first, seen(net, images, splits.train.masks.float(), bce_dice))
    assert same_weights(net, other) and net.training and torch.equal(torch.get_rng_state(), state)


def test_a_damaged_file_in_the_folder_is_named(splits, tmp_path):
    list(fit(make(), splits, epochs=1, runs=tmp_path))
    (path,) = tmp_path.glob("*.pt")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"{path.name} is damaged .*: delete it and train again"):
        list(fit(make(), splits, epochs=1, runs=tmp_path))


def test_other_images_have_a_file_of_their_own(splits, tmp_path):
    list(fit(make(), splits, epochs=1, runs=tmp_path))
    other = splits._replace(train=splits.train._replace(images=255 - splits.train.images))
    list(fit(make(), other, epochs=1, runs=tmp_path))
    assert len(names(tmp_path)) == 2


def test_a_slow_disk_is_written_to_now_and_then(splits, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(train, "save", lambda content, path: written.append(len(content["rows"])))
    list(fit(make(), splits, epochs=4, runs=tmp_path))
    assert written == [4]  # the end always, and before it once in PAUSE seconds
    written.clear()
    monkeypatch.setattr(train, "PAUSE", 0)
    list(fit(make(), splits, epochs=4, runs=tmp_path))
    assert written == [1, 2, 3, 4]


def test_without_a_folder_nothing_is_written(splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(fit(make(), splits, epochs=1, runs=colab.run_folder()))
    assert not list(tmp_path.iterdir())
