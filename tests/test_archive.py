"""Zip archives that lie, leak or break."""

import io
import struct
import tracemalloc
import warnings
import zipfile
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pytest

from course_lib.data import archive
from course_lib.errors import UserError


@pytest.fixture
def packed(tmp_path):
    """Writes entries {name: bytes} to a zip archive and returns its path."""

    def pack(entries, compression=ZIP_DEFLATED):
        path = tmp_path / "nuclei.zip"
        with warnings.catch_warnings(), ZipFile(path, "w", compression) as file:
            warnings.simplefilter("ignore")  # zipfile warns of double names, which one test wants
            for name, data in entries:
                file.writestr(name, data)
        return path

    return pack


def test_known_hash_and_whole_entries(packed, tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert archive.sha256_of(tmp_path / "abc") == known
    with archive.open_archive(packed([("a/b.png", b"x" * 1000), ("empty", b"")])) as file:
        assert file.namelist() == ["a/b.png", "empty"]
        assert archive.read_entry(file, "a/b.png") == b"x" * 1000
        assert archive.read_entry(file, "empty") == b""


def link(name="a/images/a.png"):
    entry = ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("../out.png", b"x")], "'../out.png' points outside"),
        ([("a/../../out.png", b"x")], "points outside"),
        ([("/etc/passwd", b"x")], "'/etc/passwd' points outside"),
        ([("a\\b.png", b"x")], "points outside"),
        ([("C:/b.png", b"x")], "points outside"),
        ([(link(), b"/etc/passwd")], "'a/images/a.png' is a link"),
        ([("a", b"x"), ("a", b"y")], "'a' occurs twice"),
        ([("a", bytes(65 * 2**20))], "'a' unpacks to 68157440 bytes, more than 67108864"),
        ([("a", bytes(17 * 2**20))], "'a' unpacks to more than 200 times"),
    ],
)
def test_hostile_entries_are_named(packed, entries, problem):
    with pytest.raises(UserError, match=problem) as refusal:
        archive.open_archive(packed(entries))
    assert "nuclei.zip: entry" in str(refusal.value)
    assert "get a fresh copy" in str(refusal.value)


def test_what_packs_well_but_is_small_is_welcome(packed):
    with archive.open_archive(packed([("mask.tif", bytes(2**20))])) as file:
        assert len(archive.read_entry(file, "mask.tif")) == 2**20


def test_encrypted_entry(packed):
    path = packed([("a", b"secret")], zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="'a' is encrypted"):
        archive.open_archive(path)


@pytest.mark.parametrize("cut", [0, 1, 40, -1, -30])
def test_cut_or_foreign_file(packed, cut):
    path = packed([("a", b"x" * 50), ("b", b"y")])
    path.write_bytes(path.read_bytes()[:cut] if cut else b"<html>not found</html>")
    with pytest.raises(UserError, match=r"nuclei\.zip is not a whole zip archive"):
        archive.open_archive(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"gone\.zip cannot be read"):
        archive.open_archive(tmp_path / "gone.zip")
    with pytest.raises(UserError, match="cannot be read"):
        archive.sha256_of(tmp_path)


def test_flipped_bytes_in_an_entry(packed):
    path = packed([("a", b"nuclei" * 100)], zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with archive.open_archive(path) as file, pytest.raises(UserError, match="entry 'a' is damaged"):
        archive.read_entry(file, "a")


def test_an_entry_that_holds_more_than_announced_is_not_inflated(packed):
    """A bomb whose directory claims 10 bytes: at most 11 may be unpacked."""
    path = packed([("a", bytes(50 * 2**20))])
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", data, data.rindex(mark) + offset, 10)
    path.write_bytes(data)
    tracemalloc.start()
    with archive.open_archive(path) as file, pytest.raises(UserError, match="entry 'a' is damaged"):
        archive.read_entry(file, "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_an_entry_that_holds_less_than_announced(packed):
    path = packed([("a", b"12345")])
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 24, 9)
    path.write_bytes(data)
    with archive.open_archive(path) as file, pytest.raises(UserError, match="entry 'a' is"):
        archive.read_entry(file, "a")


def test_nothing_is_written_to_disk(packed, tmp_path, monkeypatch):
    path = packed([("a/images/a.png", b"x")])
    before = set(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    with archive.open_archive(path) as file:
        archive.read_entry(file, "a/images/a.png")
    assert set(tmp_path.rglob("*")) == before


def test_zip_as_bytes_of_an_image_is_still_a_zip(packed):
    """The file's ending does not matter, its bytes do."""
    path = packed([("a", b"x")])
    renamed = path.rename(path.with_suffix(".png"))
    assert zipfile.is_zipfile(io.BytesIO(renamed.read_bytes()))
    archive.open_archive(renamed).close()
