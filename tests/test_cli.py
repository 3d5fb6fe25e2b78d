"""The command line as a user meets it: the files it writes, what it says about mistakes, and that it resumes."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import files
from course_lib.__main__ import main
from course_lib.data import Split, Splits, load
from course_lib.data.membranes import write_folder
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict.apply import apply_to
from course_lib.predict.setting import Setting
from course_lib.train import Recipe, fit
from course_lib.train.checkpoint import load_model, save_model
from tests.weights import same_weights

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ["train", "--size", "32", "--widths", "4", "6", "--precision", "fp32", "--device", "cpu"]


def options_of(folder, out):
    return ["--data", str(folder), "--deep-supervision", "--epochs", "25", "--batch-size", "2", "--out", str(out)]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "own"
    assert main([*TRAIN, *options_of(folder, out)]) == 0
    return out


@pytest.fixture
def predict(trained):
    """The command, on images, into a folder."""
    model = str(trained / "model.pt")
    return lambda out, *words: main(["predict", "--model", model, "--out", str(out), *map(str, words)])


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def pixels(path):
    return np.asarray(Image.open(path))


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_train_writes_four_files_and_the_same_call_again_changes_none(trained, folder):
    assert sorted(path.name for path in trained.iterdir()) == ["checkpoint.pt", "log.csv", "metrics.json", "model.pt"]
    rows = rows_of(trained / "log.csv")
    assert list(rows[0]) == ["epoch", "loss", "val_iou", "val_dice", "lr", "seconds"] and len(rows) == 25
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["val"]["iou_pooled"] == pytest.approx(float(rows[-1]["val_iou"]))
    net, facts = load_model(trained / "model.pt")
    assert isinstance(net, NestedUNet) and not net.training and net.config["widths"] == (4, 6)
    assert facts == {"data": str(folder), "size": 32, "tiles": False, "seed": 0}
    before = {path.name: path.read_bytes() for path in trained.glob("*.[pl][to]*")}
    assert main([*TRAIN, *options_of(folder, trained)]) == 0
    assert {path.name: path.read_bytes() for path in trained.glob("*.[pl][to]*")} == before


@pytest.mark.parametrize(("part", "images"), [("test", 2), ("all", 10)])
def test_evaluate_prints_nothing_but_json(trained, folder, capsys, part, images):
    call = ["evaluate", "--model", str(trained / "model.pt"), "--data", str(folder), "--split", part, "--instances"]
    assert main(call) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["split"], report["images"], report["data"]) == (part, images, str(folder))
    metrics = report["metrics"]
    assert {"iou_pooled", "dice_pooled", "iou_per_image", "dice_per_image"} <= set(metrics)
    assert metrics["iou_pooled"] > 0.7 and metrics["nuclei_true"] == 2 * images
    assert metrics["ap50"] > 0.8 and 1.5 * images <= metrics["nuclei_found"] <= 2.5 * images
    assert main([*call, "--scale", "6"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["nuclei_found"] == 0  # all are below 8 x 36 pixels


def test_predict_writes_masks_at_the_size_of_each_image(predict, folder, tmp_path):
    image, large = folder / "images/cell3.png", tmp_path / "large.png"
    Image.open(image).resize((480, 401)).convert("RGBA").save(large)
    out = tmp_path / "out"
    assert predict(out, image, large, "--instances") == 0
    kinds = ("instances", "mask", "outlines", "probability")
    names = [f"{stem}_{kind}.png" for stem in ("cell3", "large") for kind in kinds]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "counts.csv", "nuclei.csv"])
    assert pixels(out / "large_mask.png").shape == (401, 480)
    mask = pixels(out / "cell3_mask.png")
    assert set(np.unique(mask)) == {0, 255} and (mask == pixels(folder / "masks/cell3.png")).mean() > 0.9
    assert pixels(out / "cell3_instances.png").max() == 2
    assert predict(tmp_path / "native", large, "--native") == 0
    native = pixels(tmp_path / "native/large_probability.png")
    assert native.shape == (401, 480) and (native != pixels(out / "large_probability.png")).any()


def test_a_larger_file_does_not_hold_more_nuclei(predict, tmp_path, monkeypatch):
    """The net sees 32x32 whatever the file; two middles two of its pixels apart are one nucleus in either file."""
    y, x = np.mgrid[:32, :32]
    seen = np.where(np.minimum((x - 13) ** 2, (x - 15) ** 2) + (y - 14) ** 2 < 36, 0.9, 0.1)
    monkeypatch.setattr("course_lib.predict.apply.predict", lambda *_, **__: torch.tensor(seen)[None])
    for side, scale, nuclei in ((32, 1, 1), (320, 1, 1), (32, 20, 0)):
        Image.new("L", (side, side)).save(tmp_path / f"{side}.png")
        assert predict(tmp_path / "out", tmp_path / f"{side}.png", "--instances", "--scale", scale) == 0
        assert pixels(tmp_path / f"out/{side}_instances.png").max() == nuclei


def test_the_tables_say_what_the_pictures_show(predict, folder, tmp_path):
    images = [folder / f"images/cell{n}.png" for n in (3, 4)]
    assert predict(tmp_path, *images, "--instances") == 0
    counts, nuclei = rows_of(tmp_path / "counts.csv"), rows_of(tmp_path / "nuclei.csv")
    assert [row["file"] for row in counts] == ["cell3.png", "cell4.png"]
    for row, image in zip(counts, images, strict=True):
        labels = pixels(tmp_path / f"{image.stem}_instances.png")
        assert int(row["nuclei"]) == labels.max() == 2 and int(row["area"]) == (labels > 0).sum()
        for nucleus in (line for line in nuclei if line["file"] == row["file"]):
            place = np.argwhere(labels == int(nucleus["number"]))
            assert int(nucleus["area"]) == len(place)
            assert [float(nucleus["row"]), float(nucleus["column"])] == pytest.approx(place.mean(0), abs=0.05)
        shown = pixels(tmp_path / f"{image.stem}_outlines.png")
        changed = (shown != np.asarray(Image.open(image).convert("RGB"))).any(axis=2)
        assert changed.any() and (labels[changed] > 0).all()


def test_an_image_without_nuclei_gets_a_table_without_rows(predict, tmp_path):
    Image.new("L", (40, 40)).save(tmp_path / "dark.png")
    assert predict(tmp_path / "out", tmp_path / "dark.png", "--instances") == 0
    assert (tmp_path / "out/nuclei.csv").read_text() == "file,number,area,row,column\n"
    assert (tmp_path / "out/counts.csv").read_text() == "file,nuclei,area\ndark.png,0,0\n"


@pytest.mark.parametrize("cut", ["cell5.png,1,7", "cell5.png,1,7,3.0,4", "cell5.png,1,7,3.0,4,5\n", "cell5.png,1\n"])
def test_tables_keep_the_rows_of_earlier_calls(predict, folder, tmp_path, cut):
    images = {n: folder / f"images/cell{n}.png" for n in (2, 3, 4)}
    assert predict(tmp_path, images[3], images[4], "--instances") == 0
    both = (tmp_path / "nuclei.csv").read_text()
    with (tmp_path / "nuclei.csv").open("a") as file:
        file.write(cut)  # a call that was killed while it wrote
    assert predict(tmp_path, images[4], "--instances") == 0  # once more
    assert (tmp_path / "nuclei.csv").read_text() == both
    assert predict(tmp_path, images[2], "--instances") == 0
    assert [row["file"] for row in rows_of(tmp_path / "counts.csv")] == ["cell3.png", "cell4.png", "cell2.png"]
    assert (tmp_path / "nuclei.csv").read_text().startswith(both)


def test_a_foreign_table_is_not_overwritten(predict, folder, tmp_path, capsys):
    (tmp_path / "counts.csv").write_text("name,age\nAda,36\n")
    assert predict(tmp_path, folder / "images/cell3.png", "--instances") == 2
    assert "counts.csv has other columns than file, nuclei, area: move it away" in capsys.readouterr().err
    assert (tmp_path / "counts.csv").read_text() == "name,age\nAda,36\n"


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode there")
def test_a_name_that_is_no_text(predict, folder, tmp_path):
    image = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png"))
    try:
        image.write_bytes((folder / "images/cell3.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    assert predict(tmp_path / "out", image, "--instances") == 0
    assert b"bad\xff.png," in (tmp_path / "out/counts.csv").read_bytes()


@pytest.mark.parametrize("command", ["masks closed", "train --data closed --out x", "draw closed"])
def test_a_folder_that_may_not_be_entered(command, tmp_path, monkeypatch, capsys):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    for name in ("exists", "is_dir", "iterdir"):
        monkeypatch.setattr(Path, name, refuse)
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: closed\S* cannot be used \(Permission denied\): check path, .* free space\n", said)


@pytest.mark.parametrize(("widths", "side"), [(1000, 2048), (4, 4096)])
def test_too_little_memory_is_said_in_a_sentence_before_the_training(tmp_path, monkeypatch, capsys, widths, side):
    images = torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(1_000_000, 3, side, side)
    part = Split(images, images[:, :1], images[:, 0], ["x"] * len(images))
    monkeypatch.setattr("course_lib.__main__.data.load", lambda *_, **__: Splits(part, part, part))
    monkeypatch.setattr("course_lib.__main__.fit", lambda *_, **__: pytest.fail("the training has begun"))
    call = [*TRAIN, "--widths", *[str(widths)] * 2, "--batch-size", "1000000"]
    assert main([*call, "--out", str(tmp_path / "x")]) == 2
    assert last_line(capsys.readouterr().err).startswith("error: the memory does not suffice: use smaller widths")


def test_text_is_added_to_a_file(tmp_path):
    for line in ("one\n", "two \udcff\n"):  # as of a name that is no text
        files.append(tmp_path / "new/rows.csv", line)
    assert (tmp_path / "new/rows.csv").read_bytes() == b"one\ntwo \xff\n"
    with pytest.raises(UserError, match=r"new cannot be written \(.+\): free some space or choose another folder"):
        files.append(tmp_path / "new", "a folder\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
def test_nobody_reads_on(tmp_path):
    write_folder(tmp_path / "tissue", count=3, size=64)
    call = f'set -o pipefail; "{sys.executable}" -m course_lib masks "{tmp_path / "tissue"}" | head -c 0'
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", call], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_model_of_tiles_keeps_the_resolution_by_itself(folder, tmp_path):
    assert main([*TRAIN, "--data", str(folder), "--tiles", "--epochs", "2", "--out", str(tmp_path / "run")]) == 0
    net, facts = load_model(tmp_path / "run/model.pt")
    assert facts["tiles"] is True and facts["size"] == 32
    image = folder / "images/cell3.png"
    model = ["--model", str(tmp_path / "run/model.pt")]
    assert main(["predict", *model, str(image), "--out", str(tmp_path)]) == 0
    shown = pixels(tmp_path / "cell3_probability.png") / 255
    expected = apply_to(image, net).probability
    assert np.abs(shown - expected).max() < 0.01
    assert np.abs(shown - apply_to(image, net, size=32).probability).max() > 0.01
    assert main(["evaluate", *model, "--data", str(folder)]) == 0


def test_draw_look_mend_and_train(tmp_path, capsys):
    assert main(["draw", str(tmp_path / "tissue"), "--count", "5", "--size", "96"]) == 0
    assert main(["masks", str(tmp_path / "tissue"), "--size", "96"]) == 0
    Image.new("L", (20, 30), 255).save(tmp_path / "tissue/masks/tissue000.png")
    (tmp_path / "tissue/masks/tissue001.png").rename(tmp_path / "tissue/masks/tissue001_mask.png")
    capsys.readouterr()
    assert main(["masks", str(tmp_path / "tissue"), "--size", "96"]) == 1
    shown = capsys.readouterr().out
    assert "tissue000" in shown and "tissue001_mask" in shown
    assert main(["masks", str(tmp_path / "tissue"), "--mend", str(tmp_path / "clean"), "--size", "96"]) == 0
    left = sorted(path.name for path in (tmp_path / "clean/images").iterdir())
    assert left == [f"tissue00{n}.png" for n in (1, 2, 3, 4)]
    assert main([*TRAIN, "--data", str(tmp_path / "clean"), "--epochs", "1", "--out", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("tiles", [False, True])
def test_the_command_trains_what_the_lesson_trains(tmp_path, tiles):
    tissue, out = write_folder(tmp_path / "tissue", count=4, size=64), str(tmp_path / "run")
    own = ["--data", str(tissue), "--epochs", "2", "--seed", "3", "--out", out, *["--tiles"] * tiles]
    assert main([*TRAIN, *own]) == 0
    torch.manual_seed(3)
    net = NestedUNet(widths=(4, 6))
    splits = load(tissue, 32, tiles=tiles, progress=False)
    assert len(splits.train.ids) == (8 if tiles else 2)
    assert len(list(fit(net, splits, epochs=2, recipe=Recipe(seed=3), setting=Setting("cpu")))) == 2
    assert same_weights(net, load_model(tmp_path / "run/model.pt")[0])


def test_doctor_ends_with_what_to_type_next(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "make course" in last_line(text)
    assert torch.__version__ in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train --data no-such-thing --out OUT", "there is no data set or folder 'no-such-thing'"),
        ("train --data bbbc038 --out OUT", "run `python -m course_lib data bbbc038`, or set COURSE_BBBC038_ARCHIVE"),
        ("train --wiring unet --deep-supervision --out OUT", "choose 'unet-e'"),
        ("train --size 90 --widths 2 2 2 --out OUT", "90x90 cannot be halved 2 times"),
        ("train --widths 1000000 1000000 --out OUT", "weights, more than 268,435,456: use smaller ones"),
        ("train --widths 2 2 2 2 2 2 2 2 2 2 2 2 2 --out OUT", "13 widths make a net too deep for any image"),
        ("train --device cuda --out OUT", "device 'cuda' is not on this machine"),
        ("train --size 32 --widths 2 2 --out FILE/x", "cannot be written"),
        ("train --size 32 --widths 2 2 --lr 1e30 --epochs 2 --out OUT", "in epoch"),
        ("evaluate --model OUT/model.pt --data synthetic", "model.pt is not there"),
        ("evaluate --model FILE --data synthetic", "is damaged or no file of weights"),
        ("evaluate --model MODEL --data synthetic --head 3", "head 3 does not exist"),
        ("predict --model BARE --inputs scaled --size 96 none.png --out OUT", "none.png is not a file: check its name"),
        ("predict --model MODEL FILE --out OUT", "cannot be read as a png, tif or jpg"),
        ("predict --model MODEL a/x.png b/x.tif --out OUT", "two images are called 'x'"),
        ("predict --model MODEL OUT/a/A.png b/a.tif --out OUT", "two images are called 'A'"),
        ("predict --model MODEL OUT/../a.png --out OUT/..", "choose another folder for --out"),
        ("evaluate --model TWO --data synthetic --size 96", "synthetic shows 1 class(es), and"),
        (
            "evaluate --model ODD --data synthetic",
            "odd.pt says that size is 'large', and that is not a number of pixels",
        ),
        ("evaluate --model BARE --data synthetic", "does not say how images were prepared for these weights"),
        (
            "evaluate --model MODEL --data synthetic --inputs scaled",
            "says that images are standardised for its net, not",
        ),
        ("export --model TWO --out x.onnx", "metrics.json is damaged: delete it, or train again"),
        ("train --size 32 --widths 2 2 2 2 2 2 --batch-size 1 --out OUT", "batch norm needs more than one value"),
    ],
)
def test_a_mistake_gets_one_sentence_and_status_2(words, sentence, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("COURSE_BBBC038_ARCHIVE", raising=False)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "cache"))
    (tmp_path / "file.txt").write_text("not a model")
    save_model(NestedUNet(classes=2, widths=(2, 2)), tmp_path / "two.pt")
    odd = {"config": {"widths": [2, 2]}, "weights": NestedUNet(widths=(2, 2)).state_dict(), "size": "large"}
    torch.save(odd, tmp_path / "odd.pt")
    torch.save(NestedUNet(widths=(2, 2)).state_dict(), tmp_path / "bare.pt")
    (tmp_path / "metrics.json").write_text("{")
    places = {"OUT": tmp_path / "out", "FILE": tmp_path / "file.txt", "MODEL": trained / "model.pt"}
    places |= {"TWO": tmp_path / "two.pt", "ODD": tmp_path / "odd.pt", "BARE": tmp_path / "bare.pt"}
    arguments = [re.sub("|".join(places), lambda place: str(places[place[0]]), word) for word in words.split()]
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert main(arguments) == 2
    message = last_line(capsys.readouterr().err)
    assert message.startswith("error: ") and sentence in message
    assert not (tmp_path / "out" / "model.pt").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train --wiring unet3 --out x", "invalid choice: 'unet3'"),
        ("train --epochs 0 --out x", "'0' is not a whole number from 1 to 1000000"),
        ("evaluate --model x --data y --head best", "'best' is no head"),
        ("train --lr -1 --out x", "'-1' is not a number above zero"),
        ("predict --model m i.png --scale 0 --out x", "'0' is not a number above zero"),
        ("train --lr inf --out x", "'inf' is not a number above zero"),
        ("train --lr nan --out x", "'nan' is not a number above zero"),
        ("train --seed -1 --out x", "'-1' is not a whole number from 0"),
        ("draw x --seed 99999999999999999999", "is not a whole number from 0"),
        ("draw x --size 20000", "'20000' is not a number of pixels from 16 to 4096"),
        (f"train --epochs {10**40} --out x", "is not a whole number from 1 to 1000000"),
        (f"train --batch-size {10**25} --out x", "is not a whole number from 1 to 1000000"),
        (f"draw x --count {10**30}", "is not a whole number from 1 to 1000000"),
        ("predict --model m i.png --scale 1e300 --out x", "'1e300' is not a number above zero, up to 1000"),
        ("train --lr 1e300 --out x", "'1e300' is not a number above zero, up to 1e30"),
        ("traim", "invalid choice: 'traim'"),
        ("", "required"),
    ],
)
def test_words_that_are_not_options_get_status_2(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_a_training_killed_at_random_moments_ends_bit_identical(folder, tmp_path):
    """SIGKILL, three times, then once to the end: the same weights, the same log, no file half written."""
    call = [sys.executable, "-m", "course_lib", *TRAIN, "--data", str(folder), "--epochs", "12", "--batch-size", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*call, "--out", tmp_path / "whole"], env=environment, check=True, capture_output=True)
    moments = random.Random(0)
    for kill in range(3):
        log = tmp_path / "killed" / "log.csv"
        process = subprocess.Popen([*call, "--out", tmp_path / "killed"], env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 3 * kill + 1):
            time.sleep(0.002)
        time.sleep(0.02 * moments.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*call, "--out", tmp_path / "killed"], env=environment, check=True, capture_output=True)
    nets = [load_model(tmp_path / name / "model.pt")[0] for name in ("whole", "killed")]
    assert same_weights(*nets)
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("whole", "killed")]
    assert [line.rpartition(",")[0] for line in logs[0]] == [line.rpartition(",")[0] for line in logs[1]]
    assert len(logs[0]) == 13


def test_module_and_script_are_the_same_program():
    shown = subprocess.run([sys.executable, "-m", "course_lib", "--help"], capture_output=True, text=True, check=True)
    for command in ("doctor", "data", "draw", "masks", "train", "evaluate", "predict", "export"):
        assert f"\n    {command} " in shown.stdout


def test_without_docstrings_and_asserts_everything_runs(tmp_path):
    """python -OO has neither."""
    train = ["train", "--size", "32", "--widths", "2", "3", "--epochs", "1", "--device", "cpu", "--out", "run"]
    for words in (["--help"], ["doctor"], ["draw", "t", "--count", "5", "--size", "96"], ["masks", "t"], train):
        call = [sys.executable, "-OO", "-m", "course_lib", *words]
        here = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        done = subprocess.run(call, cwd=tmp_path, env=here, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/model.pt").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("predict --model MODEL pipe.png --out x", "pipe.png is not a file: check its name"),
        ("evaluate --model pipe.png --data synthetic", "pipe.png is not there: give the path of a file"),
        ("masks own", ""),
        ("train --data own --out x", "masks/pipe.png is not a file: check its name"),
        ("train --data bbbc038 --out x", "COURSE_BBBC038_ARCHIVE names pipe.png, which is not a file"),
    ],
)
def test_a_pipe_is_not_waited_for(words, said, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_BBBC038_ARCHIVE", "pipe.png")
    write_folder("own", count=4, size=64)
    for name in ("pipe.png", "own/images/pipe.png", "own/masks/pipe.png"):
        os.mkfifo(name)
    assert main(words.replace("MODEL", str(trained / "model.pt")).split()) == (2 if said else 1)
    told = capsys.readouterr()
    assert said in told.err and (said or "images/pipe.png  unreadable" in told.out)
