"""Files and words that nobody meant: whatever comes in, a sentence or a right answer comes out, and no code runs.

Some 2,300 cases, the same in every run; COURSE_FUZZ=10 makes ten times as many, others each time.
"""

import copy
import io
import os
import pickle
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_lib import data
from course_lib.__main__ import main
from course_lib.data import decode, meaning, pixels
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.lesson import presets
from course_lib.predict import probabilities, setting
from course_lib.predict.export import model_card
from course_lib.predict.tables import COUNTS, Table
from course_lib.train import checkpoint, fit
from tests.image_files import encoded, png_header, tif
from tools.notebooks import run_parametrised
from tools.run import progress

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow says what it finds wrong in a tif
TIMES = int(os.environ.get("COURSE_FUZZ", "1"))


def cases(count):
    """A test over that many cases."""
    return settings(
        max_examples=count * TIMES,
        derandomize="COURSE_FUZZ" not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw, wholes):
    """One of some files with bytes changed, cut out, put in, or taken from another of them."""
    content = bytearray(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                content[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del content[at : at + draw(st.integers(1, 64))]
            case 2:
                content[at:at] = draw(st.binary(max_size=16))
            case 3:
                del content[at:]
            case 4:
                other = draw(st.sampled_from(wholes))
                content[at:] = other[at:]
    return bytes(content)


def files_of(array):
    """The array as every kind of file that takes it."""
    files = [tif(array, photometric="rgb" if array.ndim == 3 else "minisblack")]
    for kind in ("PNG", "TIFF", "JPEG"):
        with suppress(OSError, TypeError, KeyError):
            files.append(encoded(array, kind))
    return files


RNG = np.random.default_rng(0)
GREY, RGB = (RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((9, 7), (9, 7, 3)))
LABELS = np.repeat(np.repeat(np.arange(6, dtype=np.uint16).reshape(2, 3), 4, axis=0), 3, axis=1)
PICTURES = [file for array in (GREY, RGB, LABELS, GREY.astype(np.float32)) for file in files_of(array)]


# Images and masks


@cases(500)
@given(damaged(PICTURES))
def test_images(content):
    try:
        image = pixels.read_image(content, "a.png")
    except UserError as problem:
        assert str(problem).startswith("a.png ")
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and 2 <= image.shape[2] <= 8


@cases(400)
@given(damaged(PICTURES))
def test_masks(content):
    try:
        mask = meaning.read_mask(content, "a.png")
        labels, seen = meaning.label_mask(mask, "a.png"), meaning.look_at(mask, "a.png")
    except UserError as problem:
        assert str(problem).startswith("a.png ")
    else:
        assert labels.dtype == np.int32 and labels.ndim == 2 and labels.min() >= 0
        assert all(doubt.where == "a.png" for doubt in meaning.doubts([seen]))


@cases(200)
@given(
    st.sampled_from(["u1", "u2", "u4", "i1", "i2", "i4", "i8", "f4", "f8", "?", "c8"]),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.binary(min_size=0, max_size=400),
    st.sampled_from(["minisblack", "miniswhite"]),
)
def test_masks_of_any_numbers(kind, shape, content, photometric):
    values = np.resize(np.frombuffer(content[: len(content) // 16 * 16] or bytes(16), kind), shape)
    try:
        mask = meaning.read_mask(tif(values, photometric=photometric), "a.tif")
    except UserError:
        return
    if photometric == "minisblack":
        assert (mask == values).all() and mask.min() >= 0
    meaning.label_mask(mask, "a.png") if mask.max() < 2**31 else None


@cases(150)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 255))
def test_sizes_that_a_header_announces(width, height, depth, colour):
    """Nothing is allocated on the word of a header."""
    content = png_header(width, height, depth, colour, bytes(9))
    with pytest.raises(UserError) as refusal, pytest.MonkeyPatch.context() as patch:
        if width * height > decode.LARGEST**2:  # Pillow allocates when it loads
            patch.setattr(decode.PngImageFile, "load", lambda self: pytest.fail("allocated on the word of a header"))
        pixels.read_image(content, "a.png")
    if width * height > decode.LARGEST**2 and depth == 8 and colour in (0, 2, 3, 4, 6):
        assert "announces" in str(refusal.value)


# Archives


def entries():
    files = {}
    for n in range(4):
        files[f"n{n}/images/n{n}.png"] = encoded(np.roll(RGB, n, axis=0))
        files[f"n{n}/masks/1.png"] = encoded(np.uint8(255 * (np.roll(GREY, n, axis=0) > 128)))
    return files


def zipped(items, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as packed:
        for name, content in items:
            packed.writestr(name, content)
    return file.getvalue()


def prepared_or_refused(content):
    """Load an archive in a folder of its own: all of it or a sentence, and no file but the cache."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "a.zip")
        path.write_bytes(content)
        patch.setenv("COURSE_DATA", f"{folder}/cache")
        patch.setenv("COURSE_BBBC038_ARCHIVE", str(path))
        try:
            splits = data.load("bbbc038", 16, progress=False)
        except UserError as problem:
            assert "\n" not in str(problem) and str(path) in str(problem)
            splits = None
        left = {file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if file.is_file()}
        left = {name for name in left if not name.endswith(".lock")}
        assert left <= {"a.zip", *(name for name in left if splits and name.endswith(".npz"))}
        return splits


@cases(250)
@given(damaged([zipped(entries().items()), zipped(entries().items(), zipfile.ZIP_STORED)]))
def test_archives(content):
    splits = prepared_or_refused(content)
    if splits:
        everything = data.join(splits)
        assert everything.images.dtype == torch.uint8 and everything.labels.min() >= 0


NAMES = st.one_of(
    st.sampled_from(
        ["n0/images/n0.png", "n0/masks/1.png", "../up.png", "/root.png", "a\\b.png", "C:/x.png", "n0/masks/"]
    ),
    st.text(max_size=12),
)


@cases(150)
@given(st.lists(st.tuples(NAMES, st.sampled_from([*PICTURES, b"", b"text", bytes(5000)])), max_size=6))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_of_any_entries(items):
    try:
        content = zipped([*entries().items(), *items])
    except (UnicodeEncodeError, ValueError, IndexError):  # zipfile itself does not write such a name
        return
    prepared_or_refused(content)


# Files of weights


class Trap:
    """Runs code where a pickle is trusted."""

    def __reduce__(self):
        return exec, ("import os; os.environ['COURSE_TRAP'] = 'it ran'",)


def weights_files():
    torch.manual_seed(0)
    net = NestedUNet(widths=(2, 3))
    contents = [
        {"net": "NestedUNet", "config": net.config | {"widths": [2, 3]}, "weights": net.state_dict(), "size": 16},
        net.state_dict(),
        {"config": 1, "weights": Trap()},
        [Trap()],
    ]
    found = []
    for content in contents:
        for options in ({}, {"_use_new_zipfile_serialization": False}):
            file = io.BytesIO()
            torch.save(content, file, **options)
            found.append(file.getvalue())
    return [*found, *(pickle.dumps(content, protocol) for content in contents[2:] for protocol in (0, 2, 5))]


@cases(350)
@given(damaged(weights_files()))
@pytest.mark.filterwarnings("ignore")  # torch warns of what it finds in files; what counts is what it does
def test_files_of_weights(content):
    os.environ.pop("COURSE_TRAP", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pt")
        path.write_bytes(content)
        try:
            net, facts = checkpoint.load_model(path)
        except UserError as problem:
            assert str(path) in str(problem)
        else:
            assert isinstance(net, torch.nn.Module) and isinstance(facts, dict)
    assert "COURSE_TRAP" not in os.environ


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["net", "config", "weights", "widths", "wiring", "classes"]), inner, max_size=4
        ),
    ),
    max_leaves=8,
)


@cases(150)
@given(PLAIN)
def test_weights_of_any_plain_content(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pt")
        torch.save(content, path)
        with pytest.raises(UserError, match=r"model\.pt"):
            checkpoint.load_model(path)


TENSORS = [
    torch.zeros(()),
    torch.ones(2, 3),
    torch.full((3,), float("nan")),
    torch.zeros(1).expand(2**20, 2**20),
    torch.arange(4),
    torch.ones(2, 2, dtype=torch.complex64),
    torch.eye(2).to_sparse(),
    torch.zeros(2, 2, device="meta"),
    torch.zeros(5000, dtype=torch.uint8),
]
ODD = st.one_of(
    PLAIN,
    st.sampled_from([*TENSORS, 0, -3, 2**70, 10**400, 1e308, float("nan"), 96.0, "", "\0", [], {}, (), [[[[[[0]]]]]]]),
    st.lists(st.integers(-(2**70), 2**70), min_size=2, max_size=30),
)


@st.composite
def spoilt(draw, whole):
    """A copy of nested dictionaries and lists in which one to three places hold something else, or are gone, or new."""
    content = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        place = content
        while True:
            inner = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from([*inner, "classes", "size"] if isinstance(place, dict) else inner))
            deeper = place[key] if isinstance(place, list) or key in place else None
            if not isinstance(deeper, dict | list) or not deeper or draw(st.integers(0, 2)) == 0:
                break
            place = deeper
        if draw(st.integers(0, 3)) == 0 and isinstance(place, dict):
            place.pop(key, None)
        else:
            place[key] = draw(ODD)
    return content


def model():
    net = NestedUNet(widths=(2, 3), wiring="unet-e", deep_supervision=True)
    facts = {"data": "own", "size": 96, "tiles": True, "seed": 0, "classes": ["cell"], "shrink": 1, "inputs": "scaled"}
    return facts | {"net": "NestedUNet", "config": {**net.config, "widths": [2, 3]}, "weights": dict(net.state_dict())}


SCORES = {
    "val": {"iou_pooled": 0.5, "classes": {"cell": {"iou_pooled": 0.5}}},
    "test": {"iou_pooled": 1},
    "seconds": 3.0,
}


@cases(300)
@given(spoilt(model()), spoilt(SCORES))
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns of sparse tensors
def test_facts_of_a_model(content, scores):
    """What is believed can be used: for maps, for the card, for the size of the command line."""
    with tempfile.TemporaryDirectory() as folder, suppress(UserError):
        torch.save(content, Path(folder, "model.pt"))
        net, facts = checkpoint.load_model(Path(folder, "model.pt"))
        data.sets.check_size(96 if facts.get("size") is None else facts["size"])
        image = torch.zeros(1, net.config["in_channels"], 4, 4, dtype=torch.uint8)
        assert probabilities(net, image).shape == (1, net.config["classes"], 4, 4)
        assert "Model card" in model_card(net, facts, scores)


def training(folder):
    """The checkpoint of the first epoch of two."""
    torch.manual_seed(0)
    splits = data.draw(5, 16)
    run = fit(
        net := NestedUNet(widths=(2, 3)), splits, epochs=2, setting=setting.Setting("cpu"), checkpoint=folder / "c.pt"
    )
    return net, splits, next(run)


with tempfile.TemporaryDirectory() as place:
    *_, FIRST = training(Path(place))
    CHECKPOINT = checkpoint.load(Path(place, "c.pt"))


@cases(300)
@given(spoilt(CHECKPOINT))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_checkpoint_is_refused_whole_or_goes_on(content):
    torch.manual_seed(0)
    net, splits = NestedUNet(widths=(2, 3)), data.draw(5, 16)
    with tempfile.TemporaryDirectory() as folder, suppress(UserError):
        torch.save(content, Path(folder, "c.pt"))
        rows = list(fit(net, splits, epochs=2, setting=setting.Setting("cpu"), checkpoint=Path(folder, "c.pt")))
        assert [row["epoch"] for row in rows] == [1, 2]


# Words


@cases(200)
@given(st.text(max_size=12))
def test_values_of_parameters(text):
    name, value = run_parametrised.parameter(f"PRESET={text}")
    assert name == "PRESET"
    for ask in (presets.sizes, setting.torch_device, lambda name: data.load(name, progress=False)):
        try:
            ask(value if isinstance(value, str) else text)
        except UserError as problem:
            assert "\n" not in str(problem).replace(text, "")


@cases(100)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30), st.from_regex(r'\{"exercise": "\w+", "correct": (true|false)\}\n').map(str.encode)
        )
    )
)
def test_files_of_progress(parts):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "me.jsonl")
        path.write_bytes(b"".join(parts))
        try:
            rows = progress.overview([path])
        except UserError as problem:
            assert "me.jsonl" in str(problem)
        else:
            assert all(row["tried"] == 1 for row in rows)


@cases(100)
@given(st.binary(max_size=80))
def test_tables_that_somebody_edited(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "counts.csv")
        path.write_bytes(b"file,nuclei,area\n" + content)
        table = Table(path, COUNTS, [Path("new.png")])
        try:
            table.add([{"file": "new.png", "nuclei": 1, "area": 2}])
        except UserError as problem:
            assert "counts.csv" in str(problem)
        else:
            assert path.read_bytes().endswith(b"new.png,1,2\n")


ARGUMENTS = st.one_of(
    st.sampled_from(
        ["--data", "--out", "--size", "--widths", "--seed", "--epochs", "--lr", "--head", "--model", "0", "-1"]
    ),
    st.text(max_size=6),
)


@cases(150)
@given(st.sampled_from(["draw", "masks", "evaluate", "predict", "export"]), st.lists(ARGUMENTS, max_size=5))
def test_command_lines(command, words):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if command == "draw":  # the one that writes: not more than it takes to see it work
            words = [*words, "--count", "3", "--size", "16"]
        try:
            status = main([command, *words])
        except SystemExit as stopped:  # argparse: the words are none of the command's
            status = stopped.code
        assert status in (0, 1, 2)
