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
MOUNT = "from google.colab import drive; drive.mount('/content/drive')"


def on_colab() -> bool:
    """Whether this Python is a Colab notebook's."""
    return "google.colab" in sys.modules


def notice() -> str:
    """What the set-up cell of a lesson says: the GPU, or what to click for one, and on Colab what a disconnect costs.
    Raises UserError: $COURSE_PRESET names no preset.
    """
    gpu = torch.cuda.is_available()
    without = "No GPU is attached, and the lessons run without one" if on_colab() else "No GPU on this machine"
    lines = [f'{torch.cuda.get_device_name() if gpu else without}: "auto" is the preset {presets.resolve()} here.']
    if on_colab() and not gpu:
        lines.append("For larger trainings click Runtime, Change runtime type, T4 GPU, Save, then run from the top.")
    folder = run_folder()
    if folder and (os.environ.get(VARIABLE) or DRIVE.is_dir()):
        lines.append(f"Trainings are kept in {folder} and go on where they stopped.")
    elif folder:
        lines.append(f"A disconnect loses what was trained. To keep it in your Drive, run: {MOUNT}")
    if on_colab() and (file := os.environ.get(progress.VARIABLE)):
        lines.append(f"To take your progress home: from google.colab import files; files.download({file!r})")
    return "\n".join(lines)


def run_folder() -> Path | None:
    """The folder for checkpoints of trainings: $COURSE_RUNS, else a folder of a mounted Drive, else on Colab runs/.

    None elsewhere: a laptop's lesson trains for a minute, and an old training in place of a new one would surprise.
    """
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    if not on_colab():
        return None
    return DRIVE / "unetpp-course" if DRIVE.is_dir() else Path("runs")


def kept(*training: object) -> Path | None:
    """The file in `run_folder()` of a training named by all that tells it apart; None where nothing is kept.
    For `fit(checkpoint=...)`: kept("05", "small-sharp", 2, 0) is FOLDER/05-small_sharp-2-0.pt.
    """
    folder, name = run_folder(), "-".join(re.sub(r"[^\w.+]+", "_", str(part)) for part in training)
    return folder / f"{name}.pt" if folder else None
