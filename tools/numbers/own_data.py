"""docs/own_data.md between its marks: python -m tools.numbers.own_data [--only doctor]

`<!-- doctor -->`: folders with one fault each and the mask doctor's answers. `<!-- commands -->`: from an empty folder
to counted cells with the command line alone, every command and its output. `<!-- seams -->`: tiles against one pass, by
the net of the commands. A mark's part ends at `<!-- end -->`. All of it takes a minute and a half on two cores.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from course_lib.data import mask_doctor
from course_lib.data.membranes import draw_membranes
from course_lib.data.synthetic import draw_nuclei
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict import predict
from course_lib.results import markdown
from course_lib.train.checkpoint import load_model
from tools.checkout import ROOT
from tools.command import command

PAGE = ROOT / "docs/own_data.md"
Fault = Callable[[Path], None]
COMMANDS = """
draw tissue --count 30
masks tissue --size 96
train --data tissue --tiles --size 96 --widths 8 16 32 64 --deep-supervision --epochs 10 --out runs/tissue
evaluate --model runs/tissue/model.pt --data tissue --instances
draw fresh --count 2 --size 600 --seed 7
predict --model runs/tissue/model.pt fresh/images/tissue000.png fresh/images/tissue001.png --out found --instances
export --model runs/tissue/model.pt --out runs/tissue/model.onnx
"""


def good(folder: Path) -> None:
    """Six drawn images of nuclei, 64 x 96 pixels, cell0 to cell5; masks hold instance numbers."""
    images, labels = draw_nuclei(6, 96, seed=1, look="small-sharp")
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for n in range(6):
        save(folder / f"images/cell{n}.png", images[n][:64])
        save(folder / f"masks/cell{n}.png", labels[n][:64].astype(np.uint16))


def save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def masks(change: Callable[[np.ndarray], np.ndarray], *which: int) -> Fault:
    """Change the masks of these images, of all where none is named."""

    def fault(folder: Path) -> None:
        for n in which or range(6):
            path = folder / f"masks/cell{n}.png"
            save(path, change(np.array(Image.open(path)).astype(np.int32)))

    return fault


def in_colour(labels: np.ndarray) -> np.ndarray:
    colours = np.random.default_rng(0).integers(60, 255, (labels.max() + 1, 3), dtype=np.uint8)
    return np.where(labels[..., None] > 0, colours[labels], 0).astype(np.uint8)


def black_and_white(labels: np.ndarray) -> np.ndarray:
    return (255 * (labels > 0)).astype(np.uint8)


def renamed(old: str, new: str) -> Fault:
    return lambda folder: (folder / old).rename(folder / new)


def removed(*names: str) -> Fault:
    return lambda folder: [(folder / name).unlink() for name in names]


def replaced(name: str, content: bytes) -> Fault:
    return lambda folder: (folder / name).write_bytes(content)


def cut_off(folder: Path) -> None:
    path = folder / "images/cell2.png"
    path.write_bytes(path.read_bytes()[:2000])


def as_jpg(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        jpg = io.BytesIO()
        Image.fromarray(black_and_white(np.array(Image.open(path)))).save(jpg, "JPEG", quality=90)
        path.unlink()
        path.with_suffix(".jpg").write_bytes(jpg.getvalue())


def brighter_twin(folder: Path) -> None:
    """cell0 again under five other names, brighter: some of them land in another part."""
    image = np.array(Image.open(folder / "images/cell0.png")).astype(float)
    for n in range(1, 6):
        save(folder / f"images/cell{n}.png", np.rint((image * (1 + 0.05 * n)).clip(0, 255)).astype(np.uint8))


def sixteen_bit(folder: Path) -> None:
    for path in (folder / "images").iterdir():
        grey = np.array(Image.open(path))[..., 0].astype(np.uint16)
        save(path, 40 * grey)


FAULTS: dict[str, Fault] = {
    "nothing": lambda folder: None,
    "16-bit grey images": sixteen_bit,
    "hidden files that macOS leaves": replaced("images/._cell1.png", b"finder"),
    "masks of 0 and 255": masks(black_and_white),
    "masks as jpg": as_jpg,
    "masks in colour, one a nucleus": masks(in_colour),
    "all masks inverted": masks(lambda labels: black_and_white(labels == 0)),
    "one mask inverted": masks(lambda labels: black_and_white(labels == 0), 2),
    "one empty mask": masks(lambda labels: 0 * labels.astype(np.uint8), 2),
    "a mask of half the size": masks(lambda labels: labels[::2, ::2].astype(np.uint16), 2),
    "a mask with rows and columns swapped": masks(lambda labels: labels.T.astype(np.uint16), 2),
    "a cropped mask": masks(lambda labels: labels[:50].astype(np.uint16), 2),
    "a photo in place of a mask": lambda folder: shutil.copy(folder / "images/cell2.png", folder / "masks/cell2.png"),
    "masks called cell0_mask": lambda folder: [
        path.rename(path.with_stem(f"{path.stem}_mask")) for path in sorted((folder / "masks").iterdir())
    ],
    "a mask with another name": renamed("masks/cell2.png", "masks/final version.png"),
    "a lost mask": removed("masks/cell2.png"),
    "a lost image": removed("images/cell2.png"),
    "an image that is text": replaced("images/cell2.png", b"not a picture"),
    "an image cut off by a full disk": cut_off,
    "one image under two names": lambda folder: shutil.copy(folder / "images/cell1.png", folder / "images/cell2.png"),
    "one image six times, each brighter": brighter_twin,
    "two images in all": removed(*(f"{kind}/cell{n}.png" for kind in ("images", "masks") for n in range(2, 6))),
    "no folder masks": lambda folder: shutil.rmtree(folder / "masks"),
}


def answers() -> str:
    """A table: what was done to a good folder, and what the doctor says of it at 48 pixels."""
    rows = []
    for done, fault in FAULTS.items():
        for said, mends in diagnosis(fault):
            rows.append({"what was done": done, "the doctor's answer": said, "mends it": mends})
            done = ""
    return markdown(rows) + "\n"


def diagnosis(fault: Fault) -> list[tuple[str, str]]:
    """What the doctor says of a folder with this fault, a line for each kind of problem, and whether it mends it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "folder"
        good(folder)
        fault(folder)
        try:
            *findings, _ = mask_doctor.examine(folder, 48)
        except UserError as problem:
            return [(str(problem).replace(scratch + "/", ""), "no")]
    kinds: dict[str, list[mask_doctor.Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.problem, []).append(finding)
    said = []
    for first, *more in kinds.values():
        others = f" (and {len(more)} more)" if more else ""
        said.append((f"**{first.problem}**: {first.file} {first.detail}{others}", "yes" if first.mendable else "no"))
    return said or [("nothing is wrong", "-")]


def transcript() -> tuple[str, str]:
    """Every command of COMMANDS and what it printed, in an empty folder; and `seams` of the net that they train."""
    parts = []
    with tempfile.TemporaryDirectory() as scratch:
        for line in COMMANDS.strip().splitlines():
            call = [sys.executable, "-m", "course_lib", *line.split()]
            done = subprocess.run(call, cwd=scratch, capture_output=True, text=True)
            if done.returncode:
                raise UserError(f"{line}\n{done.stderr}")
            parts.append(f"$ python -m course_lib {line}\n{done.stdout.strip()}\n")
        for name in ("found/counts.csv", "found/nuclei.csv"):
            rows = (Path(scratch) / name).read_text(encoding="utf-8").splitlines()
            parts.append("\n".join([f"$ head -n 4 {name}", *rows[:4]]) + "\n")
        net, _ = load_model(Path(scratch) / "runs/tissue/model.pt")
    return "```text\n" + "\n".join(parts) + "```\n", seams(net)


def seams(net: NestedUNet, side: int = 1024) -> str:
    """A table of tiles and overlaps: how far the map is from that of a single pass, at the cuts and everywhere."""
    drawn = draw_membranes(1, side, seed=99)[0][0]
    image = torch.from_numpy(drawn)[None].repeat(3, 1, 1)
    whole = predict(net, image, tile=side, overlap=0)[0]
    rows = []
    for tile, overlap in ((96, 0), (96, 24), (512, 0), (512, 64)):
        tiled = predict(net, image, tile=tile, overlap=overlap)[0]
        apart, cuts = (tiled - whole).abs(), torch.arange(tile, side, tile)
        beside = torch.cat([apart[:, cuts - 1].flatten(), apart[:, cuts].flatten()])
        beside = torch.cat([beside, apart[cuts - 1].flatten(), apart[cuts].flatten()])
        changed = ((tiled > 0.5) != (whole > 0.5)).float().mean()
        apart_by = {"at the cuts": f"{beside.mean():.4f}", "everywhere": f"{apart.mean():.4f}"}
        apart_by |= {"most": f"{apart.max():.2f}", "mask changes": f"{changed:.2%}"}
        rows.append({"tile": tile, "overlap": overlap, **apart_by})
    return markdown(rows) + "\n"


@command
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=["doctor", "commands"])
    only = parser.parse_args().only
    parts = {} if only == "commands" else {"doctor": answers()}
    if only != "doctor":
        parts["commands"], parts["seams"] = transcript()
    text = PAGE.read_text(encoding="utf-8")
    for mark, part in parts.items():
        begins, ends = text.index(f"<!-- {mark} -->\n") + len(f"<!-- {mark} -->\n"), "<!-- end -->"
        text = text[:begins] + part + text[text.index(ends, begins) :]
    PAGE.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
