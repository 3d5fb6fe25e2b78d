"""Data sets from the built-in images, archives and folders: the same on every machine, refused in one sentence."""

import http.server
import os
import random
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lib import data
from course_lib.data import cache, sets
from course_lib.errors import UserError
from tests.image_files import encoded as png

REAL = os.environ.get("COURSE_BBBC038_ARCHIVE")  # read before the fixture below hides it
ROOT = Path(__file__).resolve().parent.parent
SIZE = 16
IDS = [f"n{i}" for i in range(7)]


def picture(n):
    """A 24 x 36 image with nuclei 1 and 2, which touch, and 3 of one pixel; n sets look and place."""
    labels = np.zeros((24, 36), np.uint8)
    labels[4:16, 3 + n : 12 + n], labels[6:18, 12 + n : 20 + n], labels[22, 1] = 1, 2, 3
    background = [(10, 10, 10), (220, 220, 220), (230, 190, 220)][n % 3]
    image = np.full((24, 36, 3), background, np.uint8)
    image[labels > 0] = 128
    return image, labels


def bbbc_entries():
    entries = {}
    for n, name in enumerate(IDS):
        image, labels = picture(n)
        entries[f"{name}/images/{name}.png"] = png(np.dstack([image, np.full((24, 36), 255, np.uint8)]))
        for number in (1, 2, 3):
            entries[f"{name}/masks/{number}.png"] = png((labels == number).astype(np.uint8) * 255)
    return entries


def pack(path, entries):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test sees the machine's archives or cache."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "cache"))
    for source in data.SOURCES.values():
        monkeypatch.delenv(source.variable, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def bbbc(tmp_path, monkeypatch):
    path = pack(tmp_path / "small.zip", bbbc_entries())
    monkeypatch.setenv("COURSE_BBBC038_ARCHIVE", str(path))
    return path


@pytest.fixture
def folder(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / "mine" / kind).mkdir(parents=True)
    for n, name in enumerate(IDS):
        image, labels = picture(n)
        (tmp_path / f"mine/images/{name}.png").write_bytes(png(image))
        (tmp_path / f"mine/masks/{name}.png").write_bytes(png(labels))
    return tmp_path / "mine"


def same_part(one, other):
    return one.ids == other.ids and all(torch.equal(x, y) for x, y in zip(one[:3], other[:3], strict=True))


def same(one, other):
    return all(same_part(a, b) for a, b in zip(one, other, strict=True))


def load(name="bbbc038", **options):
    return data.load(name, SIZE, progress=False, **options)


# Values known by hand


def test_types_and_shapes(bbbc):
    splits = load()
    for part, count in zip(splits, (4, 2, 1), strict=True):
        assert (part.images.dtype, part.images.shape) == (torch.uint8, (count, 3, SIZE, SIZE))
        assert (part.masks.dtype, part.masks.shape) == (torch.uint8, (count, 1, SIZE, SIZE))
        assert (part.labels.dtype, part.labels.shape) == (torch.int32, (count, SIZE, SIZE))
        assert part.images.is_contiguous()
        assert torch.equal(part.masks[:, 0] == 1, part.labels > 0)
        assert part.masks.max() == 1
        assert part.ids == sorted(part.ids)


def test_pixels_belong_to_their_id(bbbc):
    everything = data.join(load())
    assert everything.ids == [id for part in load() for id in part.ids] and sorted(everything.ids) == IDS
    for image, mask, labels, id in zip(*everything[:4], strict=True):
        truth, _ = picture(int(id[1:]))
        assert image[:, -1, -1].tolist() == truth[-1, -1].tolist()
        assert labels.unique().tolist() == [0, 1, 2]  # 3 is too small to show
        assert mask.sum() == (labels > 0).sum()
        y, x = 10 * SIZE // 24, (7 + int(id[1:])) * SIZE // 36
        assert labels[y, x] == 1
        assert image[:, y, x].tolist() == [128, 128, 128]


def test_the_same_nuclei_in_every_layout(bbbc, folder, tmp_path, monkeypatch):
    expected = load()
    assert same(load(folder), expected)

    tifs = {}
    for n, name in enumerate(IDS):
        part = "train" if n < 5 else "test"
        for kind, array in zip(("images", "masks"), picture(n), strict=True):
            tifs[f"dsb2018/{part}/{kind}/{name}.tif"] = png(array, "TIFF")
    monkeypatch.setenv("COURSE_DSB2018_FLUO_ARCHIVE", str(pack(tmp_path / "fluo.zip", tifs)))
    assert same(load("dsb2018-fluo"), expected)


def test_drawn_images_are_the_default_and_seeded():
    splits = data.draw(10, 32)
    assert [len(part.ids) for part in splits] == [6, 2, 2]
    everything, other = data.join(splits), data.join(data.draw(10, 32, seed=1))
    assert everything.ids[0].startswith("synthetic-0-0000") and set(other.ids).isdisjoint(everything.ids)
    known = {image.numpy().tobytes() for image in everything.images}
    assert not any(image.numpy().tobytes() in known for image in other.images)
    whole = data.join(data.load(size=16))
    assert len(whole.ids) == 600 and same_part(whole, data.join(data.draw(size=16)))
    with pytest.raises(UserError, match="leave tiles and classes out"):
        load("synthetic", tiles=True)
    small = data.draw(9, 32, look="small-sharp").train.images
    assert {data.look_of(image.permute(1, 2, 0).numpy()) for image in small} == {"dark"}


def test_licences():
    assert data.licence_of("bbbc038").startswith("CC0; cite image set BBBC038")
    assert "StarDist" in data.licence_of("dsb2018-fluo") and "synthetic.py" in data.licence_of("synthetic")
    assert data.licence_of("my/folder") is None


def test_looks():
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert data.look_of(grey) == "dark"
    assert data.look_of(grey + 100) == "bright"
    assert data.look_of(grey + np.uint8([0, 0, 2])) == "dark"
    assert data.look_of(grey + np.uint8([0, 0, 3])) == "colour"
    checks = grey.copy()
    checks[::2] = (250, 0, 50)  # half as bright in the mean
    assert data.look_of(checks) == "colour"


# An independent reference: the split written out as one would do it by hand


def test_split_follows_its_rule():
    ids = [f"image{i}" for i in range(29)]
    greys = np.array([10] * 13 + [240] * 9 + [10] * 7, np.uint8)
    images = np.tile(greys[:, None, None, None], (1, 4, 4, 3))
    images[22:, ..., 2] = 90  # the last seven are coloured
    splits = data.split(images, np.ones((29, 4, 4), np.int32), ids=ids)

    line = []
    for look in (range(13, 22), range(22, 29), range(13)):  # bright, colour, dark: in the order of the alphabet
        line += sorted((ids[i] for i in look), key=lambda id: sha256(id.encode()).hexdigest())
    assert splits.val.ids == sorted(line[1::5])
    assert splits.test.ids == sorted(line[2::5])
    assert splits.train.ids == sorted(set(line) - set(line[1::5]) - set(line[2::5]))
    for part in splits:
        assert {int(image.max()) for image in part.images} == {10, 90, 240}


# Invariances


def test_order_folders_in_front_foreign_files_and_threads_do_not_matter(bbbc, own_cache, monkeypatch):
    expected = load()
    entries = list(bbbc_entries().items())
    random.Random(5).shuffle(entries)
    pack(bbbc, dict(entries))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert same(load(), expected)
    entries = {f"stage1_train/{name}": content for name, content in bbbc_entries().items()}
    entries |= {"stage1_train/labels.csv": b"x", "__MACOSX/n0/images/._n0.png": b"x", "stage1_train/n0/images/": b""}
    pack(bbbc, entries)
    assert same(load(), expected)
    assert len(list(own_cache.glob("*.npz"))) == 3  # none was taken for another


def test_tiles_keep_resolution_and_stay_with_their_image(bbbc, folder, own_cache):
    whole = {name: picture(n) for n, name in enumerate(IDS)}
    splits = load(folder, tiles=True)
    assert sum(len(part.ids) for part in splits) == 7 * 2 * 3  # 24 x 36 in tiles of 16
    for part in splits:
        for id, image, mask in zip(part.ids, part.images, part.masks, strict=True):
            stem, place = id.split("@")
            y, x = map(int, place.split(","))
            pixels_there, labels = whole[stem]
            assert (image.permute(1, 2, 0).numpy() == pixels_there[y : y + SIZE, x : x + SIZE]).all()
            assert (mask[0].numpy() == (labels[y : y + SIZE, x : x + SIZE] > 0)).all()
    parts = [{id.split("@")[0] for id in part.ids} for part in splits]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert same(load(tiles=True), load(tiles=True)) and not same(load(tiles=True), load())
    assert len(list(own_cache.glob("*.npz"))) == 2


# Cache


def test_cache_is_used_and_kept_apart(bbbc, own_cache, tmp_path, monkeypatch):
    expected = load()
    prepared, original = [], sets.prepare
    monkeypatch.setattr(sets, "prepare", lambda *a, **k: prepared.append(1) or original(*a, **k))
    assert same(load(), expected)
    assert not prepared
    leftover = own_cache / ".bbbc038-0-16-v1.npz.0.partial"  # of a killed run
    leftover.touch()
    os.utime(leftover, (0, 0))
    assert same(load(), expected) and not leftover.exists()

    data.load("bbbc038", 20, progress=False)  # another size
    entries = bbbc_entries()
    entries["n0/images/n0.png"] = png(picture(0)[0] // 2)
    bbbc.unlink()
    pack(bbbc, entries)  # another archive of the same name
    assert not same(load(), expected)
    pack(bbbc, bbbc_entries())
    monkeypatch.setattr(sets, "PREPARATION", 99)
    assert same(load(), expected)
    assert len(prepared) == 3
    assert len(list(own_cache.glob("bbbc038-*.npz"))) == 4


def test_a_cache_of_the_official_archive_needs_no_archive(bbbc, monkeypatch):
    expected = load()
    monkeypatch.delenv("COURSE_BBBC038_ARCHIVE")
    source = data.SOURCES["bbbc038"]._replace(sha256=sha256(bbbc.read_bytes()).hexdigest())
    monkeypatch.setitem(data.SOURCES, "bbbc038", source)
    assert same(load(), expected)


CHILDREN = """
import os, signal, sys
from pathlib import Path
from course_lib import data
from course_lib.data import pixels

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def preparing():
    original, calls = pixels.resize_labels, []
    pixels.resize_labels = lambda *a: die() if len(calls) == 3 else (calls.append(1), original(*a))[1]

def half_written():
    def cut(number):
        os.ftruncate(number, os.fstat(number).st_size // 2)
        die()
    os.fsync = cut

def before_renaming():
    Path.replace = die

def after_renaming():
    original = Path.replace
    Path.replace = lambda *a: die(original(*a))

def start(folder, moment=None):
    pid = os.fork()
    if pid == 0:
        os.environ["COURSE_DATA"] = str(folder)
        if moment:
            moment()
        data.load("bbbc038", 16, progress=False)
        os._exit(0)
    return pid

base = Path(sys.argv[1])
for moment in (preparing, half_written, before_renaming, after_renaming):
    pid = start(base / moment.__name__, moment)
    print(moment.__name__, os.WTERMSIG(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_kills_at_exact_moments(bbbc, tmp_path, monkeypatch):
    """The next load is right, and no half file is left."""
    expected = load()
    base = tmp_path / "killed"
    base.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, str(base)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "preparing 9\nhalf_written 9\nbefore_renaming 9\nafter_renaming 9\n", done.stderr
    assert len(list((base / "half_written").glob("*.partial"))) == 1
    assert not list((base / "half_written").glob("*.npz"))
    assert len(list((base / "after_renaming").glob("*.npz"))) == 1
    for folder in filter(Path.is_dir, base.iterdir()):
        monkeypatch.setenv("COURSE_DATA", str(folder))
        for cached in folder.glob("*.npz"):
            assert cache.read(cached) is not None
        assert same(load(), expected)
        assert len(list(folder.glob("*.npz"))) == 1


# Download: a server on this machine stands in for the real one


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves a small archive under the name bbbc038; set `wrong` to serve something else."""
    good = pack(tmp_path / "served.zip", bbbc_entries()).read_bytes()
    state = {"content": good, "requests": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state["requests"] += 1
            self.send_response(200 if state["content"] else 404)
            self.send_header("Content-Length", str(len(state["content"])))
            self.end_headers()
            self.wfile.write(state["content"][: state.get("stops")])
            with suppress(OSError):  # until the one who waited has gone
                while state.get("drips"):
                    self.wfile.write(b"x")
                    time.sleep(0.01)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}/stage1_train.zip"
        source = data.SOURCES["bbbc038"]._replace(url=url, sha256=sha256(good).hexdigest())
        monkeypatch.setitem(data.SOURCES, "bbbc038", source)
        yield state
        running.shutdown()


def test_download_only_when_asked_and_once(server, own_cache):
    with pytest.raises(
        UserError,
        match=r"bbbc038 is not on this machine: run `python -m course_lib data bbbc038`, or set COURSE_BBBC038",
    ):
        load()
    assert server["requests"] == 0
    splits = load(download=True)
    (zipped,) = own_cache.rglob("*.zip")
    assert os.name == "nt" or zipped.stat().st_mode & 0o044 == 0o044  # a room shares it
    for cached in own_cache.glob("*.npz"):
        cached.unlink()
    assert same(load(download=True), splits)
    for cached in own_cache.glob("*.npz"):
        cached.unlink()
    assert same(load(), splits)
    assert server["requests"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "sent a file with another SHA-256 than expected, which was removed"),
        (b"", r"\(HTTPError\)"),
        (None, r"could not be saved as .* \(ConnectionError\): check the network"),
    ],
)
def test_failed_downloads_leave_nothing(server, own_cache, monkeypatch, content, message):
    server["content"] = content
    if content is None:
        source = data.SOURCES["bbbc038"]._replace(url="http://127.0.0.1:1/stage1_train.zip")
        monkeypatch.setitem(data.SOURCES, "bbbc038", source)
    with pytest.raises(UserError, match=message):
        load(download=True)
    assert not [file for file in own_cache.rglob("*") if file.is_file() and file.suffix != ".lock"]


def test_a_server_that_drips_is_left(server, own_cache, monkeypatch):
    """A byte every hundredth of a second, so that no single read is late."""
    monkeypatch.setattr(cache, "PATIENCE_A_READ", 0.5)
    server |= {"drips": True, "stops": 0}
    with pytest.raises(
        UserError, match=r"could not be saved as .* \(less than 1000 bytes a second\): check the network"
    ):
        load(download=True)
    assert not [file for file in own_cache.rglob("*") if file.is_file() and file.suffix != ".lock"]


def test_a_connection_that_breaks_off_leaves_nothing(server, own_cache):
    server["stops"] = 100
    with pytest.raises(UserError, match=r"could not be saved as .* \(ConnectionError\): check the network"):
        load(download=True)
    assert not [file for file in own_cache.rglob("*") if file.is_file() and file.suffix != ".lock"]


CLASSROOM = """
import os, sys
from hashlib import sha256
from pathlib import Path
from course_lib import data
from course_lib.data import sets

url, digest, out = sys.argv[1:]
data.SOURCES["bbbc038"] = data.SOURCES["bbbc038"]._replace(url=url, sha256=digest)
original = sets.prepare
sets.prepare = lambda *args, **options: (Path(out, f"prepared{os.getpid()}").touch(), original(*args, **options))[1]
pids = []
for n in range(30):
    pids.append(os.fork())
    if pids[-1] == 0:
        everything = data.join(data.load("bbbc038", 16, download=True, progress=False))
        pixels = everything.images.numpy().tobytes() + everything.labels.numpy().tobytes()
        Path(out, f"seen{n}").write_text(sha256(pixels).hexdigest())
        os._exit(0)
print({os.waitpid(pid, 0)[1] for pid in pids})
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_thirty_processes_fetch_and_prepare_once(server, own_cache, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    source = data.SOURCES["bbbc038"]
    done = subprocess.run(
        [sys.executable, "-c", CLASSROOM, source.url, source.sha256, str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "{0}\n", done.stderr
    assert server["requests"] == 1
    assert len(list(out.glob("prepared*"))) == 1
    everything = data.join(load())
    pixels = everything.images.numpy().tobytes() + everything.labels.numpy().tobytes()
    assert [path.read_text() for path in out.glob("seen*")] == [sha256(pixels).hexdigest()] * 30
    assert len([file for file in own_cache.rglob("*") if file.suffix in (".npz", ".zip", ".partial")]) == 2
    assert "another process makes bbbc038-" in done.stderr


def test_damaged_download_is_noticed_and_replaced(server, own_cache):
    splits = load(download=True)
    for cached in own_cache.glob("*.npz"):
        cached.unlink()
    [zipped] = own_cache.rglob("*.zip")
    zipped.write_bytes(zipped.read_bytes()[:-5])
    with pytest.raises(
        UserError, match=r"bbbc038\.zip is damaged .*delete it and run `python -m course_lib data bbbc038`"
    ):
        load()
    assert same(load(download=True), splits)


# Refusals


def test_names_sizes_and_variables(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"no data set or folder 'nuclei' .*: use synthetic, bbbc038, dsb2018-fluo, vnc or"
    ):
        load("nuclei")
    for size in (0, -96, 15, 1025):
        with pytest.raises(UserError, match=f"size is {size}: use"):
            data.load("bbbc038", size)
    monkeypatch.setenv("COURSE_BBBC038_ARCHIVE", str(tmp_path / "gone.zip"))
    with pytest.raises(UserError, match=r"COURSE_BBBC038_ARCHIVE names .*gone.zip, which is not a file"):
        load()
    with pytest.raises(UserError, match="set COURSE_DSB2018_FLUO_ARCHIVE"):
        load("dsb2018-fluo")


def without(entries, start):
    return {name: content for name, content in entries.items() if not name.startswith(start)}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "small.zip holds no images where they are looked for: the layout is <id>/images"),
        ({"a/b.png": b"x"}, "holds no images where they are looked for"),
        (without(bbbc_entries(), "n3/masks"), r"n3 has 1 image\(s\) and 0 mask\(s\)"),
        (without(bbbc_entries(), "n3/images"), r"n3 has 0 image\(s\) and 3 mask\(s\)"),
        ({**bbbc_entries(), "n3/images/more.png": b"x"}, r"n3 has 2 image\(s\)"),
        ({"train/images/a.tif": b"", "train/images/b.tif": b"", "train/masks/a.tif": b""}, r"train has 2 image\(s\)"),
        ({**bbbc_entries(), "n3/images/n3.png": b"x"}, "small.zip/n3/images/n3.png cannot be read as a png"),
        ({**bbbc_entries(), "n3/masks/2.png": b""}, "small.zip/n3/masks/2.png cannot be read as a png"),
        (
            {**bbbc_entries(), "n3/masks/2.png": png(np.zeros((36, 24), np.uint8))},
            r"n3/masks/2.png has 36 x 24 pixels \(rows x columns\) but its image has 24 x 36",
        ),
        ({**bbbc_entries(), "../n9/images/n9.png": b"x"}, r"\.\./n9 has 1 image\(s\) and 0 mask"),
        (without(without(bbbc_entries(), ("n1", "n2", "n3")), ("n4", "n5")), "has 2 image.*at least 3"),
        (bbbc_entries() | {f"x/{k}": v for k, v in bbbc_entries().items()}, "two images have the id 'n0'"),
    ],
)
def test_archives_that_are_refused(tmp_path, own_cache, monkeypatch, entries, message):
    monkeypatch.setenv("COURSE_BBBC038_ARCHIVE", str(pack(tmp_path / "small.zip", entries)))
    with pytest.raises(UserError, match=message):
        load()
    refused_late = "at least 3" in message or "two images" in message  # when the images are prepared
    assert refused_late or not [file for file in own_cache.iterdir() if file.suffix != ".lock"]


def test_empty_masks(folder):
    empty = png(np.zeros((24, 36), np.uint8))
    (folder / "masks" / "n2.png").write_bytes(empty)
    everything = data.join(load(folder))
    assert everything.masks.sum(dim=(1, 2, 3)).eq(0).tolist() == [id == "n2" for id in everything.ids]
    for mask in (folder / "masks").iterdir():
        mask.write_bytes(empty)
    with pytest.raises(UserError, match="mine: no mask holds a nucleus that shows at 16 x 16"):
        load(folder)


def test_folders_that_are_refused(folder):
    def refused(message):
        with pytest.raises(UserError, match=message):
            load(folder)

    image, labels = picture(2)
    one, mask = folder / "images" / "n2.png", folder / "masks" / "n2.png"
    mask.write_bytes(png(labels[:-1]))
    refused("masks/n2.png has 23 x 36 pixels .* its image has 24 x 36")
    mask.write_bytes(png(image))
    refused("masks/n2.png is a mask in colour")
    mask.unlink()
    refused(r"mine: n2 has 1 image\(s\) and 0 mask\(s\), but the layout is images/<id>.png and masks/<id>.png")
    mask.write_bytes(png(labels))
    one.unlink()
    one.mkdir()
    refused("images/n2.png is not a file: check its name")


# The real archive


@pytest.fixture
def real(monkeypatch):
    if not REAL:
        pytest.skip("COURSE_BBBC038_ARCHIVE is not set: no real nuclei to test on")
    monkeypatch.setenv("COURSE_BBBC038_ARCHIVE", REAL)
    return Path(REAL)


@pytest.mark.real
def test_real_images_prepare_split_and_come_back(real, tmp_path, monkeypatch):
    """Every 16th image, at two sizes: the split does not depend on the size."""
    with cache.open_archive(real) as opened:
        samples = sets.find_samples(sets.Files(real, opened.namelist(), opened.read, True))[::16]
        assert all(len(sample.id) == 64 for sample in samples)
        names = [name for sample in samples for name in (sample.image, *sample.masks)]
        small = pack(tmp_path / "real.zip", {name: cache.read_entry(opened, name) for name in names})
    monkeypatch.setenv("COURSE_BBBC038_ARCHIVE", str(small))
    splits = data.load("bbbc038", 96, progress=False)
    everything = data.join(splits)
    assert len(everything.ids) == len(samples) >= 3
    assert (everything.labels.amax(dim=(1, 2)) >= 1).all()
    assert 0.05 < everything.masks.float().mean() < 0.4
    assert same(splits, data.load("bbbc038", 96, progress=False))
    assert [part.ids for part in data.load("bbbc038", 48, progress=False)] == [part.ids for part in splits]
