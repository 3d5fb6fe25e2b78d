"""How large everything is: three presets, one table."""

import os
from dataclasses import dataclass

import torch

from course_lib.errors import UserError


@dataclass(frozen=True)
class Sizes:
    """What a lesson works with unless its parameters cell says otherwise."""

    images: int  # built-in images drawn, of which 60 % train
    size: int  # their side, in pixels
    widths: tuple[int, ...]  # channels of rows 0, 1, ...
    epochs: int
    seeds: int  # runs behind every mean


PRESETS = {
    "smoke": Sizes(images=100, size=32, widths=(8, 16, 32), epochs=10, seeds=2),  # tests: seconds
    "laptop": Sizes(images=300, size=64, widths=(8, 16, 32, 64), epochs=15, seeds=2),  # two cores: a minute or two
    "gpu": Sizes(images=1000, size=96, widths=(16, 32, 64, 128, 256), epochs=15, seeds=3),  # a Colab T4 or better
}


def resolve(preset: str = "auto") -> str:
    """The preset meant: $COURSE_PRESET in place of "auto", else "gpu" where CUDA is there, else "laptop".
    Raises UserError: no such preset.
    """
    if preset == "auto":
        preset = os.environ.get("COURSE_PRESET", preset)
    if preset == "auto":
        return "gpu" if torch.cuda.is_available() else "laptop"
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r} is unknown: choose auto, {', '.join(PRESETS)}")
    return preset


def sizes(preset: str = "auto") -> Sizes:
    """The row of `PRESETS` that `resolve(preset)` names."""
    return PRESETS[resolve(preset)]
