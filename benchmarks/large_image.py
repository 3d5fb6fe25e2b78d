"""What a large image costs: seconds and peak memory of one file through `apply_to`, as the command line does it.

python benchmarks/large_image.py [--side 10000] [--widths 32 64 128 256 512]

The file is a grey PNG of noise; the net is UNet++ with all heads and fresh weights, which cost what trained ones do.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from course_lib.grid import NestedUNet
from course_lib.predict.apply import apply_to
from course_lib.predict.setting import Setting
from course_lib.results import machine
from tools.run.lessons import peak_resident


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    args = parser.parse_args()
    net = NestedUNet(widths=args.widths, deep_supervision=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.png"
        noise = np.random.default_rng(0).integers(0, 256, (args.side, args.side), dtype=np.uint8)
        Image.fromarray(noise).save(path, compress_level=1)
        del noise
        start = time.perf_counter()
        found = apply_to(path, net, setting=Setting.fast())
        seconds = time.perf_counter() - start
    assert found.probability.shape == (1, args.side, args.side)
    memory = peak_resident(os.getpid())
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(f"{args.side} x {args.side}, widths {args.widths}: {seconds:.0f} s", end=", ")
    print("peak memory not known here" if memory is None else f"at most {memory / 1e6:.0f} MB held")


if __name__ == "__main__":
    main()
