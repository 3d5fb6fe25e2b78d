"""Where a lesson runs: what a learner on Colab is told first, and where trainings survive a disconnect."""

import os
import re
import sys
from pathlib import Path

import torch

from course_lib.lesson import presets, progress

NOTEBOOK_PACKAGES = ("jupyterlab", "ipykernel", "nbclient", "nbconvert", "latex2mathml")  # as in pyproject.toml
DRIVE = Path("/content/drive/MyDrive")  # there once the learner has mounted it
VARIABLE = "COURSE_RUNS"
CLICKS = "Runtime, Change runtime type, T4 GPU, Save"
MOUNT = "from google.colab import drive; drive.mount('/content/drive')"


def on_colab() -> bool:
    """Whether this Python is a Colab notebook's."""
    return "google.colab" in sys.modules


def notice() -> str:
    """What the set-up cell of a lesson says: the GPU, or what to click for one, and on Colab what a disconnect costs.

    Raises:
        UserError: $COURSE_PRESET names no preset.
    """
    preset = presets.resolve()
    if torch.cuda.is_available():
        lines = [f'{torch.cuda.get_device_name()}: "auto" is the preset {preset} here.']
    elif on_colab():
        lines = [f'No GPU is attached, and the lessons run without one: "auto" is the preset {preset} here.']
        lines.append(f"For larger trainings click {CLICKS}, then run from the top.")
    else:
        lines = [f'No GPU on this machine: "auto" is the preset {preset} here.']
    folder = run_folder()
    if folder and (not on_colab() or _outlives()):
        lines.append(f"Trainings are kept in {folder} and go on where they stopped.")
    elif folder:
        lines.append(f"A disconnect loses what was trained. To keep it in your Drive, run: {MOUNT}")
    if on_colab() and os.environ.get(progress.VARIABLE):
        file = os.environ[progress.VARIABLE]
        lines.append(f"To take your progress home: from google.colab import files; files.download({file!r})")
    return "\n".join(lines)


def run_folder() -> Path | None:
    """The folder for checkpoints of trainings: $COURSE_RUNS, else a folder of a mounted Drive, else on Colab runs/.

    None elsewhere: a laptop's lesson trains for a minute, and an old training in place of a new one would surprise.
    Nothing is mounted or made here; `train.fit` makes the folder when it writes.
    """
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    if not on_colab():
        return None
    return DRIVE / "unetpp-course" if DRIVE.is_dir() else Path("runs")


def kept(*training: object) -> Path | None:
    """The file of a training in `run_folder()`, named by what tells it apart; None where nothing is kept.

    `kept("05", "small-sharp", 2, seed, epochs, size)` is FOLDER/05-small-sharp-2-0-15-64.pt, for `fit(checkpoint=...)`.
    """
    folder = run_folder()
    name = "-".join(re.sub(r"[^\w.+]+", "_", str(part)) for part in training)
    return folder and folder / f"{name}.pt"


def _outlives() -> bool:
    """Whether the folder outlives the machine."""
    return bool(os.environ.get(VARIABLE)) or DRIVE.is_dir()
