"""The bundle for a room without a network: what is in it, that it is whole, and what its installer refuses."""

import subprocess
import sys
import zipfile

import pytest

from course_lib import data
from course_lib.data import cache
from course_lib.errors import UserError
from tools.publish import bundle

OFFICIAL = data.SOURCES["bbbc038"].sha256[:16]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A bundle with one small wheel, of a checkout with a site, in a cache with right and with foreign files."""
    folder = tmp_path / "cache"
    (folder / cache.ARCHIVES).mkdir(parents=True)
    ours = f"bbbc038-{OFFICIAL}-96-v1.npz", f"{cache.ARCHIVES}/bbbc038.zip"
    for name in (*ours, "bbbc038-0123456789abcdef-96-v1.npz"):
        (folder / name).write_bytes(b"arrays")
    monkeypatch.setenv("COURSE_DATA", str(folder))
    monkeypatch.setattr(bundle, "fetch_wheels", lambda to: (to / "a-1-py3-none-any.whl").write_bytes(b"wheel"))
    assert bundle.main(["--out", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").iterdir()
    return path


def test_what_is_in_it(made):
    assert made.name.endswith(f"-{bundle.kind()}.zip")
    with zipfile.ZipFile(made) as opened:
        names = set(opened.namelist())
        assert opened.testzip() is None
    assert {"wheels/a-1-py3-none-any.whl", "install.py", "lab.py", "SHA256SUMS", "KIND"} <= names
    assert {"course/notebooks/exercises/00_start_here.ipynb", "course/README.md", "course/course_lib/grid.py"} <= names
    assert f"cache/bbbc038-{OFFICIAL}-96-v1.npz" in names and f"cache/{cache.ARCHIVES}/bbbc038.zip" in names
    assert not any("0123456789abcdef" in name for name in names)  # of an archive that others do not have
    assert not any(".git/" in name or ".venv" in name for name in names)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(UserError, match=r"b\.zip cannot be written \(No space left on device\): free 1 GB"):
        bundle.pack({"file": tmp_path / "file"}, tmp_path / "out" / "b.zip")
    assert list((tmp_path / "out").iterdir()) == []


def test_wheels_that_cannot_be_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundle.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    assert bundle.main(["--out", str(tmp_path / "out")]) == 2
    assert "pip could not fetch the wheels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("script", "spoil", "sentence"),
    [
        ("install", lambda room: (room / "KIND").write_text("vax-py39"), "this bundle is for vax-py39 and this is"),
        ("install", lambda room: (room / "course/README.md").write_text("half"), "course/README.md is damaged: copy"),
        ("install", lambda room: (room / "wheels/a-1-py3-none-any.whl").unlink(), "any.whl is missing: unpack"),
        ("lab", lambda room: None, "nothing is installed here yet: python3 install.py"),
    ],
)
def test_its_scripts_refuse(script, spoil, sentence, made, tmp_path):
    room = tmp_path / "room"
    with zipfile.ZipFile(made) as opened:
        opened.extractall(room)
    spoil(room)
    done = subprocess.run([sys.executable, room / f"{script}.py"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and sentence in done.stderr
    assert not (room / ".venv").exists()


def test_installer_and_maker_agree_on_the_kind():
    code = (bundle.SCRIPTS / "install.py").read_text(encoding="utf-8")
    names = {"sys": sys, "platform": bundle.platform}
    expression = code.partition("here = ")[2].partition("\n")[0]
    assert eval(expression, names) == bundle.kind()
    imported = [line.split()[1] for line in code.splitlines() if line.startswith(("import ", "from "))]
    assert set(imported) <= set(sys.stdlib_module_names)  # it runs where nothing is installed
