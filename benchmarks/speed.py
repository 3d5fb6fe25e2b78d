"""What makes UNet++ fast: a training step, inference, and pruned inference, one lever after the other.

python benchmarks/speed.py [--batch 16] [--size 96] [--repeats 5] [--compile] [--reuse-memory] [--json FILE]

All cases of a table take turns, so that a busy moment of the machine hits each of them. Ratios are to plain fp32 in the
same table. "of peak" is the convolutions' arithmetic over the time, as a share of what a large matrix product reaches
here in the same number format.
"""

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from course_lib.fold import folded
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice, deep_supervision
from course_lib.measure import macs
from course_lib.results import machine, table
from course_lib.setting import FORMATS, Setting, torch_device

DEVICE = torch_device("auto").type
LOW = "bf16" if DEVICE == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
Case = Callable[[], None]


def settings(compiled: bool) -> dict[str, Setting]:
    """Name -> setting: each lever alone, then together."""
    found = {
        "plain fp32": Setting(DEVICE),
        "channels last": Setting(DEVICE, channels_last=True),
        LOW: Setting(DEVICE, LOW),
        f"channels last, {LOW}": Setting(DEVICE, LOW, channels_last=True),
    }
    return found | ({f"channels last, {LOW}, compile": Setting(DEVICE, LOW, True, True)} if compiled else {})


def interleaved(cases: dict[str, Case], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every case, round after round; two rounds warm up."""
    found = {name: [] for name in cases}
    for turn in range(repeats + 2):
        for name, run in cases.items():
            finish()
            start = time.perf_counter()
            run()
            finish()
            if turn >= 2:
                found[name].append(1000 * (time.perf_counter() - start))
    return found


def finish() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def training_step(setting: Setting, net: NestedUNet, images: torch.Tensor, *, fused: bool = False) -> Case:
    """Forward, loss on all heads, backward, AdamW."""
    model = setting.compiled(setting.place(net.train()))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=fused)
    masks, loss_of = (images[:, :1] > 0.5).float(), deep_supervision(bce_dice)

    def step() -> None:
        loss = loss_of(setting.forward(model, images), masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def inference(setting: Setting, net: NestedUNet, images: torch.Tensor, *, fold: bool = False) -> Case:
    model = setting.compiled(setting.place(folded(net) if fold else net.eval()))

    @torch.inference_mode()
    def run() -> None:
        setting.forward(model, images)

    return run


def peaks() -> dict[str, float]:
    """Number format -> FLOP/s of a matrix product of 2048 x 2048 (8192 on a GPU), the best of ten."""
    side, found = (2048 if DEVICE == "cpu" else 8192), {}
    for name in ("fp32", LOW):
        a = torch.rand(side, side, dtype=FORMATS[name], device=DEVICE)
        ms = min(interleaved({name: lambda a=a: a @ a}, 10)[name])
        found[name] = 2 * side**3 / (ms / 1000)
    return found


def rows_of(found: dict[str, list[float]], work: dict[str, float], peak: dict[str, float]) -> list[dict]:
    """One line a case; `work` is its arithmetic in FLOPs."""
    plain = statistics.median(next(iter(found.values())))
    rows = []
    for name, ms in found.items():
        middle = statistics.median(ms)
        top = peak[LOW if LOW in name else "fp32"]
        rows.append({"case": name, "median ms": middle, "min": min(ms), "max": max(ms), "of plain": middle / plain}
                    | {"times as fast": plain / middle, "of peak": work[name] / (middle / 1000) / top})  # fmt: skip
    return rows


def measure(batch: int, size: int, repeats: int, compiled: bool) -> dict[str, list[dict]]:
    """Three tables at the default widths: "training step", "inference", "pruned inference"."""

    def fresh() -> NestedUNet:
        torch.manual_seed(0)
        return NestedUNet(deep_supervision=True)

    images = torch.rand(batch, 3, size, size, device=DEVICE)
    levers, peak = settings(compiled), peaks()
    forward = 2.0 * batch * macs(fresh(), (size, size))
    best = f"channels last, {LOW}"

    steps = {name: training_step(setting, fresh(), images) for name, setting in levers.items()}
    steps[f"{best}, fused AdamW"] = training_step(levers[best], fresh(), images, fused=True)
    tables = {"training step": rows_of(interleaved(steps, repeats), dict.fromkeys(steps, 3 * forward), peak)}
    del steps
    runs = {name: inference(setting, fresh(), images) for name, setting in levers.items()}
    runs["plain fp32, norms folded"] = inference(levers["plain fp32"], fresh(), images, fold=True)
    runs[f"{best}, norms folded"] = inference(levers[best], fresh(), images, fold=True)
    tables["inference"] = rows_of(interleaved(runs, repeats), dict.fromkeys(runs, forward), peak)
    del runs
    cut, work = {"plain fp32, L4": inference(levers["plain fp32"], fresh(), images)}, {"plain fp32, L4": forward}
    for level in (4, 3, 2, 1):
        name = f"{best}, norms folded, L{level}"
        cut[name] = inference(levers[best], fresh().prune(level), images, fold=True)
        work[name] = 2.0 * batch * macs(fresh().prune(level), (size, size))
    rows = rows_of(interleaved(cut, repeats), work, peak)
    whole = rows[1]["median ms"]
    for row in rows[1:]:
        share = work[row["case"]] / forward
        row |= {"share of MACs": share, "time over share": row["median ms"] / whole / share}
    rows[0] |= {"share of MACs": None, "time over share": None}
    return tables | {"pruned inference": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile too: a minute before the first step")
    parser.add_argument(
        "--reuse-memory", action="store_true", help="glibc keeps large blocks instead of giving them back"
    )
    parser.add_argument("--json", type=Path, help="write the rows here too")
    args = parser.parse_args()
    if args.reuse_memory:  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h: no page faults for fresh large tensors
        libc = ctypes.CDLL("libc.so.6")
        if not (libc.mallopt(-3, 1 << 30) and libc.mallopt(-1, (1 << 31) - 1)):
            raise SystemExit("this C library does not let itself be told: leave --reuse-memory out")
    # The peak has to be reached in the format that convolutions use, and theirs is TF32 unless it is switched off.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    about = machine() | {"batch": args.batch, "size": args.size, "reuse memory": args.reuse_memory}
    print("UNet++ with all heads, widths 32..512;", ", ".join(f"{key} {value}" for key, value in about.items()))
    tables = measure(args.batch, args.size, args.repeats, args.compile)
    for name, rows in tables.items():
        print(f"\n{name}\n{table(rows)}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"measured": about, "tables": tables}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
