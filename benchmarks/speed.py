"""What makes UNet++ fast: a training step, inference, and pruned inference, one lever after the other.

python benchmarks/speed.py [--repeats 5] [--compile] [--graphs] [--reuse-memory] [--quick] [--store]

All cases of a table take turns, so that a busy moment of the machine hits each of them. Ratios are to plain fp32 in the
same table. "of peak" is the convolutions' arithmetic over the time, as a share of what a large matrix product reaches
here in the same number format (for fp32 on an NVIDIA GPU that is TF32, which PyTorch's convolutions use). "change" is
the largest change of a logit, as a share of the largest logit. --store writes data/results/speed.json (speed_gpu.json
where there is a GPU), from which benchmarks/README.md and lesson 09 are made. Where MONAI is installed (pip install
-e ".[bench]") its UNet++ at the same widths stands beside ours.
"""

import argparse
import csv
import ctypes
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from benchmarks.race import one_by_one
from course_lib.data import Split, draw
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice, deep_supervision
from course_lib.measure import macs
from course_lib.predict.setting import FORMATS, Setting, torch_device
from course_lib.results import machine, store, table
from course_lib.train import batches

DEVICE = torch_device("auto").type
LOW = "bf16" if DEVICE == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
BEST = f"channels last, {LOW}"
SHAPES = ((16, 96), (2, 256))  # images a batch, their side
BATCHES = (2, 4, 8, 16, 32) if DEVICE == "cpu" else (8, 16, 32, 64, 128, 256)
WIDTHS = (32, 64, 128, 256, 512)
Case = Callable[[], Any]
Rows = list[dict[str, Any]]


def levers(compiled: bool) -> dict[str, Setting]:
    """Name -> setting: each lever alone, then together."""
    found = {
        "plain fp32": Setting(DEVICE),
        "channels last": Setting(DEVICE, channels_last=True),
        LOW: Setting(DEVICE, LOW),
        BEST: Setting(DEVICE, LOW, channels_last=True),
    }
    return found | ({f"{BEST}, compile": replace(found[BEST], compile=True)} if compiled else {})


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


def training_step(
    setting: Setting,
    net: nn.Module,
    images: Tensor,
    *,
    fused: bool | None = None,  # None: PyTorch's own choice, all tensors at once on a GPU; False loops over them
    graph: bool = False,
    search: bool = False,
) -> Case:
    """Forward, loss on all heads, backward, AdamW.

    `graph`: recorded once as a CUDA graph. `search`: cuDNN tries its algorithms for every convolution first.
    """
    model = setting.compiled(setting.place(net.train()))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=fused, capturable=graph)
    masks, loss_of = (images[:, :1] > 0.5).float(), deep_supervision(bce_dice)
    flags = partial(torch.backends.cudnn.flags, enabled=True, benchmark=True) if search else nullcontext

    def step() -> None:
        with flags():
            loss = loss_of(setting.forward(model, images), masks)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return recorded(step) if graph else step


def inference(setting: Setting, net: nn.Module, images: Tensor, *, graph: bool = False) -> Case:
    """Images -> the logits of the heads."""
    model = setting.for_inference(net)

    @torch.inference_mode()
    def run() -> list[Tensor]:
        return setting.forward(model, images)

    return recorded(run) if graph else run


def recorded(work: Case) -> Case:
    """The work's kernels recorded as one CUDA graph, so that Python does not hand them over one by one."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is made once, such as the optimiser's state, is made before the recording
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Any:
        graph.replay()
        return result

    replay.recorded = work  # to keep it: a graph knows the places of its tensors and does not hold them
    return replay


def peaks() -> dict[str, float]:
    """Number format -> FLOP/s of a matrix product of 2048 x 2048 (8192 on a GPU), the best of ten."""
    side, found = (2048 if DEVICE == "cpu" else 8192), {}
    for name in ("fp32", LOW):
        a = torch.rand(side, side, dtype=FORMATS[name], device=DEVICE)
        ms = min(interleaved({name: lambda a=a: a @ a}, 10)[name])
        found[name] = 2 * side**3 / (ms / 1000)
    return found


def rows_of(found: dict[str, list[float]], work: dict[str, float], peak: dict[str, float]) -> Rows:
    """One line a case; `work` is its arithmetic in FLOPs, and may be left empty."""
    plain = statistics.median(next(iter(found.values())))
    rows = []
    for name, ms in found.items():
        middle = statistics.median(ms)
        row = {"case": name, "median ms": middle, "min": min(ms), "max": max(ms), "times as fast": plain / middle}
        if work:
            row["of peak"] = work[name] / (middle / 1000) / peak[LOW if LOW in name else "fp32"]
        rows.append(row)
    return rows


def fresh(**options: Any) -> NestedUNet:
    torch.manual_seed(0)
    return NestedUNet(widths=WIDTHS, **{"deep_supervision": True, **options})


def measure(
    batch: int, size: int, repeats: int, *, compiled: bool = False, graphs: bool = False
) -> Iterator[tuple[str, Rows]]:
    """Three tables of one shape: "training step", "inference", "pruned inference"."""
    images, peak = torch.rand(batch, 3, size, size, device=DEVICE), peaks()
    forward = 2.0 * batch * macs(fresh(), (size, size))
    cases = levers(compiled)

    steps = {name: training_step(setting, fresh(), images) for name, setting in cases.items()}
    steps[f"{BEST}, fused AdamW"] = training_step(cases[BEST], fresh(), images, fused=True)
    if graphs:
        steps[f"{BEST}, cuDNN search"] = training_step(cases[BEST], fresh(), images, search=True)
        every = {"fused": True, "graph": True}
        steps[f"{BEST}, fused AdamW, graph"] = training_step(cases[BEST], fresh(), images, **every)
        if compiled:
            best = cases[f"{BEST}, compile"]
            steps[f"{BEST}, compile, fused AdamW, graph"] = training_step(best, fresh(), images, **every)
    yield "training step", rows_of(interleaved(steps, repeats), dict.fromkeys(steps, 3 * forward), peak)
    del steps

    folded = replace(cases[BEST], fold=True)
    runs = {name: inference(setting, fresh(), images) for name, setting in cases.items()}
    runs["plain fp32, norms folded"] = inference(Setting(DEVICE, fold=True), fresh(), images)
    runs[f"{BEST}, norms folded"] = inference(folded, fresh(), images)
    if graphs:
        runs[f"{BEST}, norms folded, graph"] = inference(folded, fresh(), images, graph=True)
    rows = rows_of(interleaved(runs, repeats), dict.fromkeys(runs, forward), peak)
    plain = torch.stack(runs["plain fp32"]()).float()
    for row in rows:
        changed = torch.stack(runs[row["case"]]()).float() - plain
        row["change"] = (changed.abs().max() / plain.abs().max()).item()
    yield "inference", rows
    del runs

    cut, work = {"plain fp32, L4": inference(cases["plain fp32"], fresh(), images)}, {"plain fp32, L4": forward}
    for level in (4, 3, 2, 1):
        name = f"{BEST}, norms folded{', graph' if graphs else ''}, L{level}"
        cut[name] = inference(folded, fresh().prune(level), images, graph=graphs)
        work[name] = 2.0 * batch * macs(fresh().prune(level), (size, size))
    rows = rows_of(interleaved(cut, repeats), work, peak)
    whole = rows[1]["median ms"]
    for row in rows[1:]:
        share = work[row["case"]] / forward
        row |= {"share of MACs": share, "time over share": row["median ms"] / whole / share}
    rows[0] |= {"share of MACs": None, "time over share": None}
    yield "pruned inference", rows


def by_batch(size: int, repeats: int, *, graphs: bool = False) -> Rows:
    """A training step in the best setting at several batch sizes; "ms an image" says which pays."""
    peak, steps, work = peaks(), {}, {}
    for batch in BATCHES:
        name = f"{BEST}{', graph' if graphs else ''}, batch {batch}"
        images = torch.rand(batch, 3, size, size, device=DEVICE)
        steps[name] = training_step(levers(False)[BEST], fresh(), images, graph=graphs)
        work[name] = 6.0 * batch * macs(fresh(), (size, size))
    rows = rows_of(interleaved(steps, repeats), work, peak)
    for row, batch in zip(rows, BATCHES, strict=True):
        del row["times as fast"]
        row["ms an image"] = row["median ms"] / batch
    return rows


def profile(batch: int, size: int) -> Rows:
    """Which operations take a training step's time on the device, in the best setting, as shares of their sum."""
    step = training_step(levers(False)[BEST], fresh(), torch.rand(batch, 3, size, size, device=DEVICE))
    for _ in range(3):
        step()
    with torch.profiler.profile() as seen:
        step()
        finish()
    times = {
        event.key: event.self_cpu_time_total if DEVICE == "cpu" else event.self_device_time_total
        for event in seen.key_averages()
        if event.key.startswith("aten::")
    }
    whole = sum(times.values())
    rows = [{"case": name.removeprefix("aten::"), "share of time": time / whole} for name, time in times.items()]
    return sorted(rows, key=lambda row: -row["share of time"])[:12]


def feeding(batch: int, size: int, repeats: int) -> Rows:
    """What it takes to have one changed batch on the device: images one by one, or whole batches where they lie."""
    train = draw(batch * 5 // 2, size).train
    there = train._replace(images=train.images.to(DEVICE), masks=train.masks.to(DEVICE))

    def pull(feed: Callable, part: Split) -> Case:
        return lambda: [tensor.to(DEVICE) for tensor in next(feed(part, batch, Generator().manual_seed(0)))]

    cases = {
        "images one by one on the CPU": pull(one_by_one, train),
        "whole batches on the device": pull(batches, there),
    }
    return rows_of(interleaved(cases, repeats), {}, {})


def peer(batch: int, size: int, repeats: int) -> Rows:
    """MONAI's BasicUNetPlusPlus of the same widths beside ours, both in plain fp32 with one head."""
    from monai.networks.nets import BasicUNetPlusPlus

    images, plain = torch.rand(batch, 3, size, size, device=DEVICE), Setting(DEVICE)

    def theirs() -> nn.Module:
        torch.manual_seed(0)
        return BasicUNetPlusPlus(2, in_channels=3, out_channels=1, features=(*WIDTHS, WIDTHS[0]))

    nets = {"ours": lambda: fresh(deep_supervision=False), "MONAI BasicUNetPlusPlus": theirs}
    cases = {f"{name}, training step": training_step(plain, make(), images) for name, make in nets.items()}
    cases |= {f"{name}, inference": inference(plain, make(), images) for name, make in nets.items()}
    found = interleaved(cases, repeats)
    return [
        {"case": name, "median ms": statistics.median(ms), "min": min(ms), "max": max(ms)} for name, ms in found.items()
    ]


def processes(repeats: int) -> Rows:
    """Seconds of the second epoch of `train` with one process and with two, a thread or a GPU each."""
    train = ["train", "--data", "synthetic", "--size", "64", "--batch-size", "16", "--epochs", "2", "--widths"]
    train += ["8", "16", "32", "64", "128"]
    found: dict[str, list[float]] = {"1 process": [], "2 processes": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn, (count, ms) in product(range(repeats), enumerate(found.values(), start=1)):
            out = Path(folder) / f"{count}-{turn}"
            launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={count}", "-m", "course_lib"]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            subprocess.run([*launch, *train, "--out", out], env=environment, stdout=subprocess.DEVNULL, check=True)
            with (out / "log.csv").open(encoding="utf-8") as log:
                ms.append(1000 * float(list(csv.DictReader(log))[-1]["seconds"]))
    return rows_of(found, {}, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile too: a minute before the first step")
    parser.add_argument("--graphs", action="store_true", help="for an NVIDIA GPU: CUDA graphs, and cuDNN's search")
    parser.add_argument(
        "--reuse-memory", action="store_true", help="glibc keeps large blocks instead of giving them back"
    )
    parser.add_argument("--quick", action="store_true", help="the first shape alone")
    parser.add_argument("--store", action="store_true", help="write data/results/speed.json, or speed_gpu.json")
    args = parser.parse_args()
    if args.graphs and DEVICE == "cpu":
        parser.error("--graphs needs an NVIDIA GPU, and there is none: leave it out")
    if args.reuse_memory:  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h: no page faults for fresh large tensors
        libc = ctypes.CDLL("libc.so.6")
        if not (libc.mallopt(-3, 1 << 30) and libc.mallopt(-1, (1 << 31) - 1)):
            raise SystemExit("this C library does not let itself be told: leave --reuse-memory out")
    # The peak has to be reached in the format that convolutions use, and theirs is TF32 unless it is switched off.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    about = machine() | {"reuse memory": args.reuse_memory}
    print("UNet++ with all heads, widths 32..512;", ", ".join(f"{key} {value}" for key, value in about.items()))

    stored: Rows = []

    def show(name: str, batch: int, size: int, rows: Rows) -> None:
        shape = f"{batch}x3x{size}x{size}"
        print(f"\n{name}, {shape}\n{table(rows)}", flush=True)
        stored.extend({"table": name, "shape": shape} | row for row in rows)

    for batch, size in SHAPES[: 1 if args.quick else None]:
        for name, rows in measure(batch, size, args.repeats, compiled=args.compile, graphs=args.graphs):
            show(name, batch, size, rows)
    batch, size = SHAPES[0]
    show("profile", batch, size, profile(batch, size))
    show("batch size", batch, size, by_batch(size, args.repeats, graphs=args.graphs))
    show("feeding", batch, size, feeding(batch, size, args.repeats))
    if DEVICE == "cpu" or torch.cuda.device_count() > 1:
        show("processes", batch, 64, processes(max(1, args.repeats // 2)))
    if importlib.util.find_spec("monai"):
        show("peer", batch, size, peer(batch, size, args.repeats))
    if args.store:
        options = "".join(
            f" --{name}" for name in ("compile", "graphs", "reuse_memory", "quick") if getattr(args, name)
        ).replace("_", "-")
        command = f"python benchmarks/speed.py --repeats {args.repeats}{options} --store"
        what = "Speed of UNet++ with all heads at widths 32 to 512: medians of interleaved runs."
        print(store("speed" if DEVICE == "cpu" else "speed_gpu", stored, about=what, command=command, measured=about))


if __name__ == "__main__":
    main()
