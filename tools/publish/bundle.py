"""One zip for a room without a network: wheels, lessons, images, site -> build/bundle/unetpp-course-....zip

For machines of the kind it is made on (system, processor, Python 3.x). There: unpack it, `python3 install.py`, then
`python3 lab.py`. `make bundle` builds the site first and then this.
"""

import argparse
import hashlib
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from uuid import uuid4

from course_lib import __version__, data
from course_lib.data import cache
from course_lib.errors import UserError
from tools.checkout import ROOT, files
from tools.command import command

SCRIPTS = Path(__file__).with_name("bundle_files")  # they run where nothing is installed yet
SUMS = "SHA256SUMS"


def kind() -> str:
    """What a machine must share with this one, such as "linux-x86_64-py311"."""
    return f"{sys.platform}-{platform.machine().lower()}-py{sys.version_info[0]}{sys.version_info[1]}"


def fetch_wheels(folder: Path) -> None:
    """A wheel of the course, and of all that its notebooks need.

    Raises:
        UserError: pip could not get them; its own lines stand above.
    """
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "-w", str(folder)]
    wanted = ["-c", str(ROOT / "constraints.txt"), f"{ROOT}[notebooks]"]
    if subprocess.run([*pip, *wanted]).returncode:
        raise UserError("pip could not fetch the wheels, see above: connect to the network and type make bundle again")


def contents(wheels: Path) -> dict[str, Path]:
    """Path inside the bundle -> file."""
    inside = {f"wheels/{path.name}": path for path in sorted(wheels.glob("*.whl"))}
    inside |= {f"course/{name}": ROOT / name for name in files()}
    site = ROOT / "build" / "site"
    inside |= {f"site/{path.relative_to(site).as_posix()}": path for path in sorted(site.rglob("*")) if path.is_file()}
    folder = cache.folder()
    for name, source in data.SOURCES.items():  # only what has the published hash: it is right for everyone
        kept = [*folder.glob(f"{name}-{source.sha256[:16]}-*.npz"), folder / cache.ARCHIVES / f"{name}.zip"]
        inside |= {f"cache/{path.relative_to(folder).as_posix()}": path for path in kept if path.is_file()}
    return inside | {path.name: path for path in sorted(SCRIPTS.glob("*.py"))}


def pack(inside: dict[str, Path], path: Path) -> None:
    """Write the zip, whole or not at all, and in it the SHA-256 of every file.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    scratch, sums = path.with_name(f".{path.name}.{uuid4().hex}.partial"), []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(scratch, "w") as bundle:
            for name, file in inside.items():
                packed = zipfile.ZIP_STORED if name.startswith("wheels/") else zipfile.ZIP_DEFLATED
                bundle.write(file, name, packed)
                with file.open("rb") as content:
                    sums.append(f"{hashlib.file_digest(content, 'sha256').hexdigest()}  {name}")
            bundle.writestr(SUMS, "\n".join(sums) + "\n")
            bundle.writestr("KIND", kind() + "\n")
        scratch.replace(path)
    except OSError as problem:
        raise UserError(f"{path} cannot be written ({problem.strerror}): free 1 GB and try again") from problem
    finally:
        scratch.unlink(missing_ok=True)


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bundle", help="folder; default: build/bundle")
    path = parser.parse_args(argv).out / f"unetpp-course-{__version__}-{kind()}.zip"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as wheels:
        fetch_wheels(Path(wheels))
        inside = contents(Path(wheels))
        pack(inside, path)
    parts = {top: sum(name.startswith(f"{top}/") for name in inside) for top in ("wheels", "course", "site", "cache")}
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB; " + ", ".join(f"{n} {top}" for top, n in parts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
