"""Time of a training step of UNet++ with deep supervision in each setting, interleaved, as a ratio to plain fp32.

python benchmarks/settings.py [--repeats 7] [--widths 16 32 64 128 256]
"""

import argparse
import itertools
import statistics
import time

import torch

from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice, deep_supervision
from course_lib.results import machine, table
from course_lib.setting import Setting
from course_lib.train import Recipe, make_optimiser

PRECISIONS = ("fp32", "bf16")


def stepper(setting: Setting, widths: tuple[int, ...]):
    """A function that does one step on 8 images of 96x96 and returns its seconds."""
    torch.manual_seed(0)
    net = setting.place(NestedUNet(widths=widths, deep_supervision=True))
    optimiser, loss_of = make_optimiser(net, Recipe()), deep_supervision(bce_dice)
    images, masks = torch.rand(8, 3, 96, 96), (torch.rand(8, 1, 96, 96) > 0.5).float()

    def step() -> float:
        start = time.perf_counter()
        loss = loss_of(setting.forward(net, images), masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return time.perf_counter() - start

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    options = parser.parse_args()
    settings = [Setting("cpu", precision, last) for precision, last in itertools.product(PRECISIONS, (False, True))]
    steps = {setting: stepper(setting, tuple(options.widths)) for setting in settings}
    seconds = {setting: [] for setting in settings}
    for repeat in range(options.repeats + 2):
        for setting, step in steps.items():
            taken = step()
            if repeat >= 2:  # warm-up
                seconds[setting].append(taken)
    plain = statistics.median(seconds[settings[0]])
    print(machine())
    print(
        table(
            [
                {
                    "precision": setting.precision,
                    "channels last": str(setting.channels_last),
                    "median ms": 1000 * statistics.median(values),
                    "min": 1000 * min(values),
                    "max": 1000 * max(values),
                    "of plain": statistics.median(values) / plain,
                    "chosen by fast()": "yes" if setting == Setting.fast("cpu") else "",
                }
                for setting, values in seconds.items()
            ]
        )
    )


if __name__ == "__main__":
    main()
