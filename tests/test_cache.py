"""Archives that lie, leak or break; cache files, whole or not at all."""

import errno
import os
import struct
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED

import numpy as np
import pytest
from filelock import FileLock, Timeout

from course_lib.data import cache
from course_lib.errors import UserError

# Archives


@pytest.fixture
def packed(tmp_path):
    """Writes entries {name: bytes} to a zip archive and returns its path and its bytes, to change."""

    def pack(entries, compression=ZIP_DEFLATED):
        path = tmp_path / "nuclei.zip"
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, data in entries.items():
                file.writestr(name, data)
        return path, bytearray(path.read_bytes())

    return pack


def test_known_hash(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert cache.sha256_of(tmp_path / "abc") == known
    with pytest.raises(UserError, match="cannot be read"):
        cache.sha256_of(tmp_path)


def test_entries_are_read_and_nothing_is_written_whatever_they_are_called(packed, tmp_path, monkeypatch):
    """A name is a key, and no path."""
    entries = {"a/b.png": b"x" * 1000, "empty": b"", "../a/images/a.png": b"up", "/etc/b": b"root"}
    path, _ = packed(entries)
    before = set(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    with cache.open_archive(path) as file:
        assert {name: cache.read_entry(file, name) for name in file.namelist()} == entries
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("cut", [0, 1, 40, -1, -30])
def test_cut_or_foreign_file(packed, cut):
    path, whole = packed({"a": b"x" * 50, "b": b"y"})
    path.write_bytes(whole[:cut] if cut else b"<html>not found</html>")
    with pytest.raises(UserError, match=r"nuclei\.zip is not a whole zip archive: get a fresh copy"):
        cache.open_archive(path)


def refused(path, data, problem):
    path.write_bytes(data)
    with (
        cache.open_archive(path) as file,
        pytest.raises(UserError, match=rf"nuclei\.zip: entry 'a' {problem}.*get a fresh copy"),
    ):
        cache.read_entry(file, "a")


def test_damaged_encrypted_short_and_large_entries(packed):
    path, whole = packed({"a": b"nuclei" * 100}, ZIP_STORED)
    directory = whole.index(b"PK\1\2")
    for place, change in ((60, b"\0"), (directory + 8, b"\1"), (directory + 24, struct.pack("<I", 900))):
        data = whole.copy()
        data[place : place + len(change)] = change
        refused(path, data, "is damaged")
    refused(*packed({"a": bytes(65 * 2**20)}), "unpacks to 68157440 bytes, more than 67108864")


def test_an_entry_that_holds_more_than_announced_is_not_inflated(packed):
    """A bomb whose directory claims 10 bytes: at most 11 may be unpacked."""
    path, data = packed({"a": bytes(50 * 2**20)})
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", data, data.rindex(mark) + offset, 10)
    tracemalloc.start()
    refused(path, data, "is damaged")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


# Cache files

ARRAYS = {"images": np.arange(198, dtype=np.uint8).reshape(2, 3, 11, 3), "labels": np.ones((2, 3, 11), np.int32)}
ARRAYS |= {"ids": ["a", "bcd"]}


def never():
    raise AssertionError("made again")


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "deep" / "set.npz"
    assert cache.kept(path, lambda: ARRAYS) is ARRAYS
    return path


def same(stored):
    return (stored["images"] == ARRAYS["images"]).all() and stored["ids"].tolist() == ARRAYS["ids"]


def files_beside(path):
    return [file.name for file in path.parent.iterdir() if file.suffix != ".lock"]


def test_what_is_kept_is_made_once_and_again_when_damaged(written, tmp_path):
    stored, whole = cache.kept(written, never), written.read_bytes()
    assert same(stored) and stored["images"].dtype == np.uint8 and files_beside(written) == ["set.npz"]
    cache.kept(tmp_path / "again.npz", lambda: ARRAYS)
    assert (tmp_path / "again.npz").read_bytes() == whole
    for damaged in (b"", b"x", whole[:-1], whole[: len(whole) // 2], whole[10:]):
        written.write_bytes(damaged)
        assert cache.read(written) is None
    assert cache.kept(written, lambda: ARRAYS) is ARRAYS and written.read_bytes() == whole


@pytest.mark.parametrize(
    "other",
    [
        {"images": np.zeros((2, 3, 11, 3), np.float32)},
        {"images": np.zeros((2, 3, 11), np.uint8)},
        {"labels": np.ones((2, 3, 11), np.int64)},
        {"labels": np.ones((2, 11, 3), np.int32)},
        {"ids": ["a"]},
        {"ids": [1, 2]},
    ],
)
def test_other_arrays_than_those_of_a_data_set_are_made_again(written, other):
    np.savez(written, **ARRAYS | other)
    assert cache.read(written) is None
    assert cache.kept(written, lambda: ARRAYS) is ARRAYS and same(cache.read(written))
    several = ARRAYS | {"labels": np.ones((2, 4, 3, 11), np.int32)}
    np.savez(written, **several)
    assert cache.read(written)["labels"].shape == (2, 4, 3, 11)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc on this system")
@pytest.mark.parametrize("place", ["/proc/set.npz", "/dev/null/set.npz"])
def test_a_folder_in_which_nothing_can_be_made_is_refused_before_the_work(place):
    with pytest.raises(
        UserError, match=r"the cache folder .* cannot be written .*, or set COURSE_DATA to another folder"
    ):
        cache.kept(Path(place), never)


def test_no_flipped_byte_changes_what_is_read(written):
    whole, noticed = written.read_bytes(), 0
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        written.write_bytes(damaged)
        stored = cache.read(written)
        noticed += (
            not stored or stored.keys() != ARRAYS.keys()
        )  # names are stored twice, and one of them is not checked
        assert not stored or stored.keys() != ARRAYS.keys() or same(stored)
    assert noticed > len(whole) / 14  # the rest hits dates and the like


def test_pickles_are_not_read(tmp_path):
    np.savez(tmp_path / "set.npz", images=np.array([{}], dtype=object), ids=[])
    assert cache.read(tmp_path / "set.npz") is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("step", ["mkdir", "open", "write", "replace"])
def test_full_disk_and_read_only_folder(written, monkeypatch, number, step):
    before = written.read_bytes()[:-1]
    written.write_bytes(before)

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    owner, name = (os, "fsync") if step == "write" else (Path, step)
    monkeypatch.setattr(owner, name, refuse)
    with pytest.raises(UserError, match=r"deep cannot be written .*set COURSE_DATA to another folder") as refusal:
        cache.kept(written, lambda: ARRAYS)
    monkeypatch.undo()
    assert os.strerror(number) in str(refusal.value)
    assert files_beside(written) == ["set.npz"] and written.read_bytes() == before


def test_one_at_a_time_and_the_others_say_that_they_wait(tmp_path, capsys):
    path, made = tmp_path / "deep" / "set.npz", []

    def make():
        waiting.start()
        waiting.join(0.3)
        made.append(waiting.is_alive())
        return ARRAYS

    waiting = threading.Thread(target=lambda: made.append(same(cache.kept(path, never))))
    cache.kept(path, make)
    waiting.join()
    assert made == [True, True]
    assert capsys.readouterr().err == "another process makes set.npz: waiting for it\n"


def test_an_error_lets_go(tmp_path, capsys):
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.kept(tmp_path / "set.npz", stopped)
    cache.kept(tmp_path / "set.npz", lambda: ARRAYS)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("problem", [NotImplementedError(), OSError(errno.ENOLCK, "No locks available"), Timeout("x")])
def test_a_disk_without_locks_is_no_obstacle(tmp_path, monkeypatch, problem):
    """Older filelock says Timeout for all of them."""

    def refuse(*_, **__):
        raise problem

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert cache.kept(tmp_path / "set.npz", lambda: ARRAYS) is ARRAYS


def test_only_old_leftovers_of_our_own_are_swept(written):
    old, folder = time.time() - 25 * 60 * 60, written.parent
    (folder / cache.ARCHIVES).mkdir()
    ours = [".set-v1.npz.0123.partial", f"{cache.ARCHIVES}/tmp0123"]
    others = ["tmp0123", "film.partial", "set-v1.npz", f"{cache.ARCHIVES}/bbbc038.zip"]
    for name in ours + others:
        (folder / name).touch()
        os.utime(folder / name, (old, old))
    young = [".set-v1.npz.4567.partial", f"{cache.ARCHIVES}/tmp4567"]
    for name in young:
        (folder / name).touch()
    cache.kept(written, never)
    left = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert left - {".set.npz.lock"} == {*others, *young, "set.npz"}


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "elsewhere"))
    assert cache.folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("COURSE_DATA")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "course_lib" / "data" / "cache.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert "unetpp-course" in cache.folder().parts  # an installed package
    assert tmp_path / "data" not in cache.folder().parents
    (tmp_path / "data").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert cache.folder() == tmp_path / "data" / "cache"  # a checkout
    assert not cache.folder().exists()  # asking makes nothing
