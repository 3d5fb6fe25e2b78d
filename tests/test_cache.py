"""Cache files: whole or not at all."""

import errno
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import Timeout

from course_lib.data import cache
from course_lib.errors import UserError

NAMES = ("images", "ids")


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "deep" / "set.npz"
    cache.write(path, images=np.arange(200, dtype=np.uint8).reshape(2, 100), ids=["a", "bcd"])
    return path


def test_what_was_written_is_read(written):
    images, ids = cache.read(written, NAMES)
    assert (images.dtype, images.sum()) == (np.uint8, 199 * 100)
    assert ids.tolist() == ["a", "bcd"]
    assert [file.name for file in written.parent.iterdir()] == ["set.npz"]


def test_same_arrays_give_the_same_file(written, tmp_path):
    cache.write(tmp_path / "again.npz", images=np.arange(200, dtype=np.uint8).reshape(2, 100), ids=["a", "bcd"])
    assert (tmp_path / "again.npz").read_bytes() == written.read_bytes()


def test_missing_cut_and_foreign_files_are_none(written):
    whole = written.read_bytes()
    assert cache.read(written.with_name("gone.npz"), NAMES) is None
    assert cache.read(written, ("images", "labels")) is None
    for damaged in (b"", b"x", whole[:-1], whole[: len(whole) // 2], whole[10:]):
        written.write_bytes(damaged)
        assert cache.read(written, NAMES) is None


def test_no_flipped_byte_changes_what_is_read(written):
    whole = written.read_bytes()
    images, ids = cache.read(written, NAMES)
    noticed = 0
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        written.write_bytes(damaged)
        found = cache.read(written, NAMES)
        noticed += found is None
        assert found is None or ((found[0] == images).all() and found[1].tolist() == ids.tolist())
    assert noticed > len(whole) / 14  # the rest hits dates and the like


def test_pickles_are_not_read(tmp_path):
    np.savez(tmp_path / "set.npz", images=np.array([{}], dtype=object), ids=[])
    assert cache.read(tmp_path / "set.npz", NAMES) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("step", ["mkdir", "open", "write", "replace"])
def test_full_disk_and_read_only_folder(written, monkeypatch, number, step):
    whole = written.read_bytes()

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    owner, name = (cache.os, "fsync") if step == "write" else (Path, step)
    monkeypatch.setattr(owner, name, refuse)
    with pytest.raises(UserError, match=r"deep cannot be written .*set COURSE_DATA to another folder") as refusal:
        cache.write(written, images=np.zeros(3), ids=[])
    monkeypatch.undo()
    assert os.strerror(number) in str(refusal.value)
    assert [file.name for file in written.parent.iterdir()] == ["set.npz"]
    assert written.read_bytes() == whole


def test_a_file_where_the_folder_should_be(written):
    with pytest.raises(UserError, match="cannot be written"):
        cache.write(written / "below.npz", images=np.zeros(3))


def test_one_at_a_time_and_the_others_say_that_they_wait(tmp_path, capsys):
    path, order = tmp_path / "deep" / "set.npz", []

    def second():
        with cache.alone(path):
            order.append("second")

    with cache.alone(path):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.3)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert capsys.readouterr().err == "another process makes set.npz: waiting for it\n"


def test_an_error_lets_go(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt), cache.alone(tmp_path / "set.npz"):
        raise KeyboardInterrupt
    with cache.alone(tmp_path / "set.npz"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("problem", [NotImplementedError(), OSError(errno.ENOLCK, "No locks available"), Timeout("x")])
def test_a_disk_without_locks_is_no_obstacle(tmp_path, monkeypatch, problem):
    """Older filelock says Timeout for all of them."""

    def refuse(*_, **__):
        raise problem

    monkeypatch.setattr(cache.FileLock, "acquire", refuse)
    done = []
    with cache.alone(tmp_path / "set.npz"):
        done.append(True)
    assert done


def test_a_lock_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file cannot be written .*set COURSE_DATA"), cache.alone(tmp_path / "file/a"):
        raise AssertionError("not reached")


def test_only_old_leftovers_of_our_own_are_swept(tmp_path):
    old = time.time() - 25 * 60 * 60
    (tmp_path / cache.ARCHIVES).mkdir()
    ours = ["set-v1.npz.0123.partial", f"{cache.ARCHIVES}/tmp0123"]
    others = ["tmp0123", "film.partial", "set-v1.npz", f"{cache.ARCHIVES}/bbbc038.zip"]
    for name in ours + others:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (old, old))
    young = ["set-v1.npz.4567.partial", f"{cache.ARCHIVES}/tmp4567"]
    for name in young:
        (tmp_path / name).touch()
    cache.sweep(tmp_path)
    left = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {*others, *young}
    cache.sweep(tmp_path / "gone")  # nothing to do is no error


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "elsewhere"))
    assert cache.folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("COURSE_DATA")
    module = tmp_path / "course_lib" / "cache.py"
    monkeypatch.setattr(cache, "__file__", str(module))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert "unetpp-course" in cache.folder().parts  # an installed package
    assert tmp_path / "data" not in cache.folder().parents
    (tmp_path / "data").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert cache.folder() == tmp_path / "data" / "cache"  # a checkout
    assert not cache.folder().exists()  # asking makes nothing
