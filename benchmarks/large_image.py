"""What a large image costs: seconds and peak memory of one file through `apply_to`, as the command line does it.

    python -m benchmarks.large_image [--side 10000] [--widths 32 64 128 256 512] [--instances] [--out DIR] [--tiny]

The file is a grey PNG of drawn discs with noise; the net is UNet++ with all heads and fresh weights, which cost what
trained ones do. With --instances the discs are also numbered by `separate`, from a map that shows them as they are:
what fresh weights find is nothing that could be counted.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from course_lib.files import write
from course_lib.grid import NestedUNet
from course_lib.predict.apply import apply_to
from course_lib.predict.instances import separate
from course_lib.predict.setting import Setting
from course_lib.results import as_json, machine, table
from tools.run.lessons import peak_resident

CELL = 50  # pixels from one disc to the next


def discs(side: int) -> np.ndarray:
    """uint8 (side, side): a bright disc in each cell, touching its right neighbour in every second pair."""
    y, x = np.mgrid[:CELL, : 2 * CELL]
    pair = np.hypot(y - 25, x - 28) < 20
    pair |= np.hypot(y - 25, x - 67) < 20
    noise = np.random.default_rng(0).integers(0, 60, (CELL, 2 * CELL))
    cell = (60 + 120 * pair + noise).astype(np.uint8)
    return np.tile(cell, (-(-side // CELL), -(-side // (2 * CELL))))[:side, :side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--instances", action="store_true", help="also number the discs")
    parser.add_argument("--out", type=Path, help="folder for 'large image.json'")
    parser.add_argument("--tiny", action="store_true", help="a small image and net: a rehearsal")
    options = parser.parse_args()
    side, widths = (700, [4, 6, 8, 8, 10]) if options.tiny else (options.side, options.widths)
    net = NestedUNet(widths=widths, deep_supervision=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.png"
        Image.fromarray(discs(side)).save(path, compress_level=1)
        start = time.perf_counter()
        found = apply_to(path, net, setting=Setting.fast())
        seconds = time.perf_counter() - start
    assert found.probability.shape == (1, side, side)
    row = {"case": f"{side:,} x {side:,}, widths {widths[0]} to {widths[-1]}", "seconds": seconds}
    if options.instances:
        start = time.perf_counter()
        np.greater(found.image[..., 0], 120, out=found.probability[0], casting="unsafe")  # in its place
        labels = separate(found.probability[0])
        row |= {"objects": int(labels.max()), "seconds of numbering": time.perf_counter() - start}
    memory = peak_resident(os.getpid())
    row["peak MB"] = None if memory is None else memory / 1e6
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(table([row]))
    if options.out:
        write(options.out / "large image.json", as_json([row]))


if __name__ == "__main__":
    main()
