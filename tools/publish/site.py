"""The course site: lessons with the state of their widgets, API pages, teacher's guide -> build/site. `make site`

Sphinx reads build/site-source, which is put together here from docs/, notebooks/ and the scripts that pages need. Those
come from npm once, are checked against docs/vendor.json, and stay in build/vendor: a page loads nothing from elsewhere.
"""

import argparse
import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_lib.errors import UserError
from tools.checkout import ROOT
from tools.command import command
from tools.notebooks import widget_state
from tools.numbers.readme_results import lessons_table
from tools.run.pages import instead_of_badge

LESSON = re.compile(r"\[([^\]]+)\]\((\d\d_\w+)\.ipynb\)")
BUTTONS = (
    '<p><a class="btn mb-1 btn-primary" href="{colab}">Open in Colab</a>\n'
    '<a class="btn mb-1 btn-outline-primary" href="{exercise}">Exercise edition in Colab</a>\n'
    '<a class="btn mb-1 btn-outline-secondary" href="exercises/{name}.ipynb" download>Download the exercises</a></p>'
)
NO_KERNEL = "*Without a running kernel the controls move and the picture stays: open the lesson to use them.*"


def vendor(folder: Path, wanted: list[dict]) -> None:
    """The scripts of docs/vendor.json in `folder`, fetched by npm where they are missing.

    Raises:
        UserError: npm is not there, or what it brought is not what docs/vendor.json says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in wanted:
        seal = folder / f"{hashlib.sha256(json.dumps(entry).encode()).hexdigest()[:16]}.whole"  # of this very entry
        if seal.exists():
            continue
        with tempfile.TemporaryDirectory() as scratch:
            try:
                subprocess.run(
                    [shutil.which("npm") or "npm", "pack", "--silent", entry["package"]],
                    cwd=scratch,
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
            except (FileNotFoundError, subprocess.CalledProcessError) as error:
                hint = "install Node.js, connect to the network once, and type make site again"
                raise UserError(f"npm could not fetch {entry['package']} ({error}): {hint}") from None
            (archive,) = Path(scratch).glob("*.tgz")
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            if integrity != entry["integrity"]:
                raise UserError(f"{entry['package']} is not the package that docs/vendor.json names: do not use it")
            with tarfile.open(archive) as tar:
                for inside, name in entry["files"].items():
                    (folder / name).write_bytes(tar.extractfile(inside).read())
        seal.touch()


def lesson(nb: NotebookNode, name: str, *, names: list[str], saved: dict) -> NotebookNode:
    """A committed lesson as the site shows it.

    Its number before its title, buttons for its badge, the set-up cell folded, its widgets, and no link to lessons that
    are not written yet.
    """
    nb.cells[0].source = nb.cells[0].source.replace("# ", f"# {name[:2]} ", 1)
    for cell in nb.cells:
        if "setup" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("hide-input")
        if cell.cell_type != "markdown":
            continue
        cell.source = instead_of_badge(cell.source, BUTTONS.replace("{name}", name))
        cell.source = LESSON.sub(lambda link: link[0] if link[2] in names else link[1], cell.source)
    if saved["views"]:
        widget_state.put(nb, saved)
        at = {cell.id: number for number, cell in enumerate(nb.cells)}
        for number, cell in enumerate(sorted((cell for cell in saved["views"] if cell in at), key=at.get)):
            note = nbformat.v4.new_markdown_cell(NO_KERNEL, id=f"no-kernel-{number}")
            nb.cells.insert(at[cell] + 1 + number, note)
    return nb


def sources(root: Path, out: Path) -> None:
    """Fill `out` with everything that Sphinx reads."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(root / "docs", out)
    vendor(root / "build" / "vendor", json.loads((root / "docs" / "vendor.json").read_text(encoding="utf-8")))
    shutil.copytree(
        root / "build" / "vendor", out / "_static" / "vendor", ignore=shutil.ignore_patterns("*.woff2", "*.whole")
    )
    fonts = out / "extra" / "notebooks" / "@jupyter-widgets" / "html-manager" / "dist"  # where embed-amd.js looks
    fonts.mkdir(parents=True)
    for font in (root / "build" / "vendor").glob("*.woff2"):
        shutil.copy(font, fonts)
    exercises = out / "extra" / "notebooks" / "exercises"
    shutil.copytree(root / "notebooks" / "exercises", exercises, ignore=shutil.ignore_patterns(".*"))
    names = sorted(path.stem for path in (root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    index, teaching = out / "index.md", out / "teaching.md"
    rows = "\n".join(lessons_table().replace(".ipynb)", ")").splitlines()[2:])
    index.write_text(index.read_text(encoding="utf-8").replace("{{LESSONS}}", rows), encoding="utf-8")
    text = teaching.read_text(encoding="utf-8")
    teaching.write_text(re.sub(r"\(\.\./notebooks/(\w+)\.ipynb\)", r"(notebooks/\1)", text), encoding="utf-8")
    (out / "notebooks").mkdir()
    for name in names:
        nb = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
        saved = widget_state.load(root / "notebooks" / "widgets" / f"{name}.json")
        nbformat.write(lesson(nb, name, names=names, saved=saved), out / "notebooks" / f"{name}.ipynb")


@command
def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=root / "build" / "site", help="default: build/site")
    out = parser.parse_args(argv).out
    try:
        import sphinx.cmd.build
    except ModuleNotFoundError:
        raise UserError('Sphinx is missing: type make site, or pip install -e ".[docs]"') from None
    if out.exists() and any(out.iterdir()) and not (out / ".buildinfo").exists():
        raise UserError(f"{out} holds other files: give an empty folder or a new one with --out")
    source = root / "build" / "site-source"
    sources(root, source)
    shutil.rmtree(out, ignore_errors=True)
    status = sphinx.cmd.build.main(["-W", "--keep-going", "-q", "-j", "auto", str(source), str(out)])
    if status == 0:
        print(out / "index.html")
    return status


if __name__ == "__main__":
    sys.exit(main())
