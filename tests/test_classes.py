"""Several classes and channels, end to end: each layout gives the same masks, a net learns them, scores name them."""

import csv
import json
import shutil

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from course_lib import data
from course_lib.__main__ import main
from course_lib.data import mask_doctor, pixels
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice, lovasz_hinge, soft_dice
from course_lib.metrics import scores
from course_lib.predict.export import export_onnx, model_card
from course_lib.predict.setting import Setting
from course_lib.train import Recipe, evaluate, fit
from course_lib.train.checkpoint import load_model, save_model

NAMES = ("cell", "hole", "rod")
H, W = 48, 64


def picture(n):
    """Dark cells with a bright hole in each, and rods, in noise: the image (H, W) and its class numbers, 0 to 3."""
    rng = np.random.default_rng(n)
    numbers = np.zeros((H, W), np.uint8)
    for row in (0, 1):
        for column in (0, 1):
            y, x = 24 * row + rng.integers(1, 8), 24 * column + rng.integers(1, 8)
            numbers[y : y + 12, x : x + 12] = 1
            numbers[y + 3 : y + 8, x + 3 : x + 8] = 2
    numbers[4:44, 50 + n % 5 : 56 + n % 5] = 3
    light = np.array([100, 40, 220, 160])[numbers] + rng.normal(0, 8, (H, W))
    return light.clip(0, 255).astype(np.uint8), numbers


def write(folder, layout, count=15):
    """One file of class numbers for each image, or a folder for each class, named or numbered from 0."""
    for n in range(count):
        image, numbers = picture(n)
        save(folder / f"images/n{n:02d}.png", image)
        if layout == "numbers":
            save(folder / f"masks/n{n:02d}.png", numbers)
        for k, name in enumerate(NAMES) if layout != "numbers" else ():
            inside = np.uint8(numbers == k + 1) * 255
            save(folder / "masks" / (name if layout == "names" else str(k)) / f"n{n:02d}.png", inside)
    return folder


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.mark.parametrize("classes", [NAMES, 3])
def test_each_layout_gives_the_same_masks(tmp_path, classes):
    parts = [
        data.join(data.load(write(tmp_path / layout, layout, 5), 32, classes=classes, progress=False))
        for layout in ("numbers", "names", "numbered")
    ]
    for part in parts:
        assert (
            part.masks.shape == part.labels.shape == (5, 3, 32, 32)
            and part.labels[:, 0].amax((1, 2)).tolist() == [4] * 5
        )
        assert torch.equal(part.masks, parts[0].masks) and torch.equal(part.masks, (part.labels > 0).to(torch.uint8))
    if classes == NAMES:
        assert {part.classes for part in parts} == {NAMES}
    else:
        assert [part.classes for part in parts] == [("1", "2", "3"), NAMES, ("0", "1", "2")]
    n = parts[0].ids.index("n02")
    for k in range(3):
        share = pixels.resize_labels((picture(2)[1] == k + 1).astype(np.int32), 32) > 0
        assert (parts[0].masks[n, k].numpy() == share).all()


def test_some_of_the_folders_and_tiles(tmp_path):
    folder = write(tmp_path / "own", "names", 5)
    one = data.join(data.load(folder, 32, classes=("rod",), progress=False))
    assert one.classes == ("rod",) and one.masks.shape == (5, 1, 32, 32) and one.labels.shape == (5, 32, 32)
    tiles = data.join(data.load(folder, 32, classes=("rod", "cell"), tiles=True, progress=False))
    assert tiles.masks.shape == (20, 2, 32, 32)
    n = tiles.ids.index("n00@16,32")
    assert (tiles.masks[n, 0].numpy() == (picture(0)[1][16:, 32:] == 3)).all()
    assert (tiles.masks[n, 1].numpy() == (picture(0)[1][16:, 32:] == 1)).all()


@pytest.mark.parametrize(
    ("layout", "classes", "sentence"),
    [
        ("names", None, "holds a folder of masks for each of cell, hole, rod: name the classes that you want"),
        ("names", ("cell", "mitochondrion"), "and the classes are cell, mitochondrion: name folders that are there"),
        ("numbered", NAMES[:2], "and the classes are cell, hole: name folders that are there"),
        ("numbers", None, "numbers in .* pieces, so they may be classes or smoothed"),
        ("numbers", 2, r"n00\.png holds 3 beside classes 1 to 2: name as many classes as it has"),
        ("numbers", 0, "give 1 to 64 different names"),
        ("numbers", 10**9, "give 1 to 64 different names"),
        ("numbers", ("a", "a", "b"), "give 1 to 64 different names"),
        ("numbers", ("a", "../b", "c"), "give 1 to 64 different names of letters, digits, - and _"),
    ],
)
def test_classes_that_are_refused(tmp_path, layout, classes, sentence):
    with pytest.raises(UserError, match=sentence):
        data.load(write(tmp_path / "own", layout, 5), 32, classes=classes, progress=False)


def test_void_and_a_missing_mask_are_named(tmp_path):
    write(tmp_path / "own", "numbers", 5)
    numbers = picture(0)[1]
    numbers[0] = 255
    save(tmp_path / "own/masks/n00.png", numbers)
    with pytest.raises(UserError, match=r"n00\.png holds 255 beside classes 1 to 3: .*void"):
        data.load(tmp_path / "own", 32, classes=3, progress=False)
    (write(tmp_path / "other", "names", 5) / "masks/hole/n03.png").unlink()
    with pytest.raises(UserError, match=r"n03 has 1 image\(s\) and 2 mask\(s\)"):
        data.load(tmp_path / "other", 32, classes=NAMES, progress=False)


def test_the_doctor_knows_classes(tmp_path):
    numbers = write(tmp_path / "numbers", "numbers", 5)
    assert [f.problem for f in mask_doctor.examine(numbers, 32, classes=NAMES)] == ["summary"]
    assert {f.problem for f in mask_doctor.examine(numbers, 32)} == {"summary", "numbers or classes", "too few images"}
    assert [f.problem for f in mask_doctor.examine(write(tmp_path / "names", "names", 5), 32, classes=NAMES)] == [
        "summary"
    ]
    mask_doctor.mend(numbers, tmp_path / "mended", 32, classes=NAMES)
    assert (np.asarray(Image.open(tmp_path / "mended/masks/n02.png")) == picture(2)[1]).all()
    with pytest.raises(UserError, match="mend one of them at a time, by its name"):
        mask_doctor.mend(tmp_path / "names", tmp_path / "no", 32, classes=NAMES)


def test_losses_are_means_over_images_and_classes():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, generator=rng, dtype=torch.float32)
    target = (torch.rand(2, 3, 8, 8, generator=rng) > 0.6).float()
    for loss in (bce_dice, soft_dice, lovasz_hinge):
        each = [loss(logits[:, k : k + 1], target[:, k : k + 1]) for k in range(3)]
        assert loss(logits, target).item() == pytest.approx(torch.stack(each).mean().item(), abs=1e-6)


def test_scores_of_each_class_and_their_mean():
    rng = torch.Generator().manual_seed(0)
    predicted, true = torch.rand(4, 3, 9, 9, generator=rng) > 0.5, torch.rand(4, 3, 9, 9, generator=rng) > 0.5
    found = scores(predicted, true, classes=NAMES)
    assert list(found["classes"]) == list(NAMES) and list(scores(predicted, true)["classes"]) == ["1", "2", "3"]
    for k, name in enumerate(NAMES):
        assert found["classes"][name] == scores(predicted[:, k : k + 1], true[:, k : k + 1])
    for name, value in found.items():
        if name != "classes":
            assert value == pytest.approx(np.mean([one[name] for one in found["classes"].values()]))


def test_a_net_learns_three_classes(tmp_path):
    splits = data.load(write(tmp_path / "own", "numbers"), 32, classes=NAMES, progress=False)
    torch.manual_seed(0)
    net = NestedUNet(classes=3, widths=(8, 16, 24), deep_supervision=True)
    rows = list(fit(net, splits, epochs=40, recipe=Recipe(batch_size=3, lr=1e-2), setting=Setting("cpu")))
    found = evaluate(net, splits.val, setting=Setting("cpu"))
    assert min(one["iou_pooled"] for one in found["classes"].values()) > 0.7
    assert rows[-1]["val_iou"] == pytest.approx(found["iou_pooled"])


def test_three_classes_by_the_command_line(tmp_path, capsys):
    own, run = str(write(tmp_path / "own", "names")), tmp_path / "run"
    words = ["train", "--data", own, "--classes", *NAMES, "--size", "32", "--widths", "4", "8", "--epochs", "2"]
    assert main([*words, "--out", str(run)]) == 0
    assert set(json.loads((run / "metrics.json").read_text())["val"]["classes"]) == set(NAMES)
    capsys.readouterr()
    assert main(["evaluate", "--model", str(run / "model.pt"), "--data", own, "--instances"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["classes"]["hole"].keys() >= {"iou_pooled", "dice_per_image", "ap50", "nuclei_true"}
    assert "ap50" not in metrics and metrics["classes"]["cell"]["nuclei_true"] == 4 * 3
    image = str(tmp_path / "own/images/n03.png")
    assert (
        main(["predict", "--model", str(run / "model.pt"), image, "--out", str(tmp_path / "out"), "--instances"]) == 0
    )
    files = {f"n03_{name}_{what}.png" for name in NAMES for what in ("mask", "probability", "instances", "outlines")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files | {
        "n03_overlay.png",
        "counts.csv",
        "nuclei.csv",
    }
    with (tmp_path / "out/counts.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == list(NAMES)
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", str(run / "model.pt"), "--data", own, "--classes", "a"])
    assert main(["evaluate", "--model", str(run / "model.pt"), "--data", "synthetic"]) == 2


def test_two_channels_of_16_bits_by_the_command_line(tmp_path, capsys):
    """The cells are seen only where both channels are taken together: one is dark in them, one is bright."""
    for n in range(10):
        numbers = picture(n)[1] > 0
        rng = np.random.default_rng(n)
        planes = np.stack([np.where(numbers, 9_000, 2_000), np.where(numbers, 300, 500)]) + rng.normal(0, 40, (2, H, W))
        path = tmp_path / f"own/images/n{n}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, planes.astype(np.uint16), photometric="minisblack")
        save(tmp_path / f"own/masks/n{n}.png", np.uint8(numbers) * 255)
    own, run = str(tmp_path / "own"), tmp_path / "run"
    assert data.load(own, 32, progress=False).train.images.shape == (6, 2, 32, 32)
    words = ["train", "--data", own, "--size", "32", "--widths", "4", "8", "--epochs", "10", "--batch-size", "3"]
    assert main([*words, "--lr", "0.02", "--out", str(run)]) == 0
    assert json.loads((run / "metrics.json").read_text())["val"]["iou_pooled"] > 0.8
    image = str(tmp_path / "own/images/n3.tif")
    assert main(["predict", "--model", str(run / "model.pt"), image, "--out", str(tmp_path / "out"), "--native"]) == 0
    mask = np.asarray(Image.open(tmp_path / "out/n3_mask.png"))
    assert ((mask > 0) == (picture(3)[1] > 0)).mean() > 0.9
    assert main(["masks", own, "--size", "32", "--mend", str(tmp_path / "mended")]) == 0
    again, first = (data.join(data.load(place, 32, progress=False)) for place in (tmp_path / "mended", own))
    assert torch.equal(again.images, first.images) and torch.equal(again.masks, first.masks)
    save(tmp_path / "own/images/n3.png", picture(3)[0])
    (tmp_path / "own/images/n3.tif").unlink()
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "other")]) == 2
    assert "n9 has 2 channels and n3 has 3: give all images the same channels" in capsys.readouterr().err


@pytest.mark.parametrize("channels", [1, 4])
def test_a_net_of_other_channels_is_scored_on_images_as_it_wants_them(tmp_path, capsys, channels):
    """Grey images load as three equal channels: a net of one reads the same grey, one of four an opaque fourth."""
    torch.manual_seed(0)
    net = NestedUNet(in_channels=channels, widths=(2, 3))
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    own = write(tmp_path / "own", "names", 5) / "one"
    (own / "masks").parent.mkdir(parents=True)
    shutil.copytree(tmp_path / "own/images", own / "images")
    shutil.copytree(tmp_path / "own/masks/cell", own / "masks")
    words = [
        "evaluate",
        "--model",
        str(tmp_path / "bare.pth"),
        "--inputs",
        "scaled",
        "--size",
        "96",
        "--data",
        str(own),
        "--split",
        "all",
    ]
    assert main([*words, "--device", "cpu", "--precision", "fp32"]) == 0
    told = json.loads(capsys.readouterr().out)["metrics"]
    part = data.join(data.load(own, 96, progress=False))
    grey = part.images[:, :1]
    net.inputs = "scaled"
    seen = grey if channels == 1 else torch.cat([part.images, torch.full_like(grey, 255)], dim=1)
    assert told == evaluate(net, part._replace(images=seen), setting=Setting("cpu"))


def test_names_of_classes_are_in_the_card_and_in_the_onnx_file(tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
    net = NestedUNet(classes=3, widths=(2, 3))
    facts, one = {"classes": list(NAMES), "data": "own"}, {"iou_pooled": 0.25, "dice_pooled": 0.4}
    scores_of = {"val": one | {"classes": dict.fromkeys(NAMES, one)}}
    card = model_card(net, facts, scores_of)
    assert "| classes | cell, hole, rod |" in card and "| hole, iou_pooled | 0.2500 | not measured yet |" in card
    assert "by section: 8 to 19 train" in model_card(net, facts | {"data": "vnc"}, {})
    path = export_onnx(net, tmp_path / "net.onnx", facts=facts)
    kept = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert kept["classes"] == "['cell', 'hole', 'rod']" and kept["inputs"] == "standardised"


@pytest.mark.parametrize("inputs", ["scaled", "imagenet"])
def test_an_onnx_file_prepares_its_images_as_the_net_wants_them(tmp_path, inputs):
    pytest.importorskip("onnx", reason="the extra 'export' is not installed")
    net = NestedUNet(widths=(2, 3))
    net.inputs = inputs
    export_onnx(net, tmp_path / "net.onnx")  # compares with PyTorch before it writes
    assert inputs in model_card(net, {}, {})


def test_a_class_that_shows_nowhere_is_named_and_lifts_no_mean(tmp_path):
    write(tmp_path / "own", "numbers", 5)
    with pytest.raises(UserError, match=r"no mask holds anything of dot that shows at 32 x 32: check the masks"):
        data.load(tmp_path / "own", 32, classes=(*NAMES, "dot"), progress=False)
    images, labels = np.zeros((5, 16, 16, 3), np.uint8), np.zeros((5, 2, 16, 16), np.int32)
    labels[:, 0], ids = 1, ["a", "b", "c", "d", "e"]
    train = data.split(images, labels[:, 0], ids=ids).train.ids
    labels[[n for n, id in enumerate(ids) if id not in train], 1] = 1
    with pytest.raises(UserError, match="no image of the training part shows rod: add images that do"):
        data.split(images, labels, ids=ids, classes=("cell", "rod"))
    true = torch.zeros(3, 2, 8, 8, dtype=torch.bool)
    true[:, 0, :4] = True
    found = scores(true, true.roll(1, 2) & true.any(1, keepdim=True).roll(0), classes=("cell", "rod"))
    assert found["classes"]["rod"] is None and found["iou_pooled"] == found["classes"]["cell"]["iou_pooled"] < 1


def test_what_only_the_owner_can_know_is_not_guessed(tmp_path):
    own = write(tmp_path / "own", "numbers", 5)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    save(own / "masks/n01.png", colours[picture(1)[1]])
    [first, *_] = mask_doctor.examine(own, 32, classes=NAMES)
    assert (first.file, first.problem) == ("masks/n01.png", "unreadable")
    assert "which colour is which class only you know" in first.detail
    for n in range(4):
        save(tmp_path / f"each/i{n}/images/i{n}.png", picture(n)[0])
        save(tmp_path / f"each/i{n}/masks/0.png", np.uint8(picture(n)[1] == 3) * 255)
    with pytest.raises(UserError, match="has one mask an object, which tells no classes apart: name one at most"):
        data.load(tmp_path / "each", 32, classes=NAMES, progress=False)
    assert data.load(tmp_path / "each", 32, classes=("rod",), progress=False).train.classes == ("rod",)
    mask_doctor.mend(write(tmp_path / "names", "names", 5), tmp_path / "rods", 32, classes=("rod",))
    assert (np.asarray(Image.open(tmp_path / "rods/masks/n02.png")) > 0).sum() == (picture(2)[1] == 3).sum()


def test_files_of_two_images_do_not_overwrite_each_other(tmp_path, capsys):
    net = NestedUNet(classes=2, widths=(2, 3))
    save_model(net, tmp_path / "model.pt", size=32, classes=["cell", "dark_cell"])
    for name in ("x", "x_dark"):
        save(tmp_path / f"{name}.png", picture(0)[0])
    words = ["predict", "--model", str(tmp_path / "model.pt"), "--out", str(tmp_path / "out")]
    assert main([*words, str(tmp_path / "x.png"), str(tmp_path / "x_dark.png")]) == 2
    assert "files called x_dark_cell would be of two images: predict them apart" in capsys.readouterr().err
    for names in (["x/../../escaped", "b"], ["a", "a"], ["A", "a"], ["a\0b", "c"], ["a" * 300, "b"]):
        with pytest.raises(UserError, match="that is not a list of names"):
            save_model(net, tmp_path / "other.pt", classes=names)
    save_model(net, tmp_path / "three.pt", classes=["a", "b", "c"])
    with pytest.raises(UserError, match=r"three\.pt names 3 class\(es\) of 2: save it anew"):
        load_model(tmp_path / "three.pt")


def test_a_model_of_halved_sections_says_so_everywhere(tmp_path, capsys):
    save_model(NestedUNet(widths=(2, 3)), tmp_path / "model.pt", size=32, tiles=True, shrink=2, data="vnc")
    own = write(tmp_path / "own", "names", 5)
    assert main(["evaluate", "--model", str(tmp_path / "model.pt"), "--data", str(own)]) == 2
    assert "is of images made 2 times smaller: evaluate it on vnc" in capsys.readouterr().err
    card = model_card(*load_model(tmp_path / "model.pt"), {})
    assert "made 2 times smaller (do so before you give it one) and cut into tiles of 32x32" in card
