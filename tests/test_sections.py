"""The electron microscopy: which sections are in which part, which classes, and that another content is refused."""

import os
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lib import data
from course_lib.data import sections
from course_lib.errors import UserError
from tests.image_files import encoded, tif

ROOT = "groundtruth-drosophila-vnc-master/stack1/"


def drawn(n):
    """Section n, 64 x 64, and its masks: in each a square of 16 pixels, of mitochondria with grey borders."""
    rng = np.random.default_rng(n)
    image = rng.integers(0, 256, (64, 64)).astype(np.uint8)
    masks = np.zeros((3, 64, 64), np.uint8)
    for k in range(3):
        masks[k, 4 * n % 40 :, 16 * k :][:16, :16] = 255
    masks[1][masks[1].cumsum(1) == 255] = 77  # the left border
    return image, masks


@pytest.fixture
def archive(tmp_path, monkeypatch):
    seen = sha256()
    with zipfile.ZipFile(tmp_path / "vnc.zip", "w") as packed:
        for n in range(20):
            image, masks = drawn(n)
            entries = {f"raw/{n:02d}.tif": tif(image)}
            entries |= {
                f"{name}/{n:02d}.png": encoded(mask) for name, mask in zip(sections.CLASSES, masks, strict=True)
            }
            for name, content in entries.items():
                packed.writestr(ROOT + name, content)
                seen.update(name.encode() + content)
    monkeypatch.setattr(sections, "CONTENT", seen.hexdigest())
    monkeypatch.setenv("COURSE_VNC_ARCHIVE", str(tmp_path / "vnc.zip"))
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "cache"))
    return tmp_path / "vnc.zip"


def test_sections_are_dealt_in_blocks(archive):
    splits = data.load("vnc", 16, classes=sections.CLASSES, progress=False)
    assert splits.test.ids == [f"{n:02d}" for n in range(4)]
    assert splits.val.ids == [f"{n:02d}" for n in range(4, 8)] and len(splits.train.ids) == 12
    tiles = data.load("vnc", 16, classes=("synapses", "mitochondria"), tiles=True, progress=False)
    assert {id[:2] for id in tiles.test.ids} == {"00", "01", "02", "03"} and len(tiles.train.ids) == 12 * 4
    whole = data.join(data.load("vnc", 64, classes=sections.CLASSES, progress=False))
    assert whole.masks.sum((0, 2, 3)).tolist() == [20 * 256, 20 * 240, 20 * 256]
    assert tiles.train.masks.shape == (48, 2, 16, 16) and tiles.train.classes == ("synapses", "mitochondria")


def test_masks_are_cut_at_half_and_halved(archive):
    one = data.join(data.load("vnc", 32, classes=["mitochondria"], tiles=True, progress=False))
    assert one.labels.shape == (20, 32, 32) and one.images.shape == (20, 3, 32, 32)
    n = one.ids.index("05@0,0")
    image, masks = drawn(5)
    share = (masks[1] == 255).reshape(32, 2, 32, 2).mean(axis=(1, 3))  # without the grey border
    assert torch.equal(one.masks[n, 0], torch.from_numpy(np.uint8(share >= 0.5)))
    mean = image.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.abs(one.images[n, 0].numpy() - mean).max() <= 0.5


def test_classes_must_be_named_and_the_content_is_checked(archive, monkeypatch):
    for classes in (None, 2, ["mitochondrion"], ["synapses", "synapses"], []):
        with pytest.raises(UserError, match="vnc has the classes membranes, mitochondria, synapses: name those"):
            data.load("vnc", 16, classes=classes, progress=False)
    monkeypatch.setattr(sections, "CONTENT", "0" * 64)
    with pytest.raises(UserError, match=r"vnc\.zip holds other sections than the published ones: delete it and get"):
        data.load("vnc", 16, classes=["synapses"], progress=False)
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("readme", "nothing")
    with pytest.raises(UserError, match=r"vnc\.zip holds no raw/00\.tif: get the archive named in data/README"):
        data.load("vnc", 16, classes=["synapses"], progress=False)


@pytest.mark.skipif("COURSE_VNC_ARCHIVE" not in os.environ, reason="COURSE_VNC_ARCHIVE is not set: no real sections")
def test_the_real_sections(tmp_path, monkeypatch):
    """What the masks say of the pixels: membranes and synapses are darker than the rest, and nothing is inverted."""
    assert Path(os.environ["COURSE_VNC_ARCHIVE"]).is_file()
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    splits = data.load("vnc", 128, classes=sections.CLASSES, tiles=True, progress=False)
    assert [len(part.ids) for part in splits] == [192, 64, 64]
    light = splits.train.images.float().mean(1)
    shares = splits.train.masks.float().mean((0, 2, 3)).tolist()
    assert shares == pytest.approx([0.214, 0.055, 0.005], abs=0.002)
    for k in range(3):
        assert light[splits.train.masks[:, k] > 0].mean() < light.mean() - 30
