"""What makes a training step, inference and pruned inference fast, and by how much? One stage a question.

    python -m benchmarks.speed [--stages step inference ...] [--tiny] [--store]

On a GPU `benchmarks.gpu_day` runs the same stages, each in a process with a deadline. --tiny takes small nets
and few repeats: a rehearsal. --store writes data/results/speed.json.

"ms" is the median of blocks of one case (`benchmarks.timing`). "of peak" is the convolutions' arithmetic over the time,
as a share of what a large matrix product reached in the stage `peaks` in the same number format (for fp32 on a GPU that
is TF32, which PyTorch's convolutions use). "of roofline" is the time that the convolutions need at the peak or at the
memory's bandwidth, whichever is longer for each, over the time taken.
"""

import argparse
import copy
import csv
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from benchmarks.race import one_by_one
from benchmarks.timing import DEVICE, GPU, TINY, Row, Size, Step, finish, fresh, layers, row_of
from course_lib.data import draw
from course_lib.files import write
from course_lib.grid import NestedUNet
from course_lib.measure import convolution_costs, kind_of, macs, parameters, roofline_seconds
from course_lib.predict.recorded import Recorded
from course_lib.predict.setting import FORMATS, Setting, folded
from course_lib.results import as_json, machine, store, table
from course_lib.train import batches
from tests.unrolled import UnrolledNested
from tools.command import command

ABOUT = "UNet++ with all heads, widths 32 to 512, images of 96x96: medians of blocks of one case."
Rows = Iterator[Row]
BEST = {"precision": "bf16", "last": True, "fused": True}
LEVERS: dict[str, tuple[Row, bool, bool]] = {  # options of Step, cuDNN tries its algorithms first, recorded
    "plain fp32": ({}, False, False),
    "fused AdamW": ({"fused": True}, False, False),
    "channels last, fused": ({"last": True, "fused": True}, False, False),
    "bf16, fused": ({"precision": "bf16", "fused": True}, False, False),
    "bf16, channels last, fused": (BEST, False, False),
    "fp16, channels last, fused": (BEST | {"precision": "fp16"}, False, False),
    "bf16, channels last, fused, search": (BEST, True, False),
    "fp32, fused, recorded": ({"fused": True}, False, True),
    "channels last, fused, search, recorded": ({"last": True, "fused": True}, True, True),
    "bf16, fused, search, recorded": ({"precision": "bf16", "fused": True}, True, True),
    "bf16, channels last, fused, recorded": (BEST, False, True),
    "bf16, channels last, fused, search, recorded": (BEST, True, True),
    "fp16, channels last, fused, search, recorded": (BEST | {"precision": "fp16"}, True, True),
    "bf16, channels last, fused, search, recorded, no bias": (BEST | {"bias": False}, True, True),
}


def only_on_gpu(options: Row, search: bool, recorded: bool) -> bool:
    return search or recorded or options.get("precision") == "fp16"


def work_of(size: Size, count: int) -> float:
    """FLOP of the forward pass of so many images."""
    return 2.0 * count * macs(fresh(size).cpu(), (size.side, size.side))


def peaks(size: Size) -> Rows:
    """Arithmetic of a large matrix product; bandwidth of a copy, reading and writing counted."""
    side, numbers = (256, 2**20) if size == TINY else (8192, 2**28) if GPU else (2048, 2**27)
    torch.backends.cuda.matmul.allow_tf32 = True
    for name, form in FORMATS.items():
        if name == "fp16" and not GPU:
            continue
        a = torch.rand(side, side, device=DEVICE).to(form)
        row = row_of(f"matrix product {name}", lambda a=a: a @ a, size)
        yield row | {"FLOP/s": 2 * side**3 / row["min"] * 1000}
    x = torch.rand(numbers, device=DEVICE)
    y = torch.empty_like(x)
    row = row_of("copy", lambda: y.copy_(x), size)
    yield row | {"bytes/s": 2 * x.numel() * x.element_size() / row["min"] * 1000}


def proof(size: Size) -> Rows:
    """Whether 20 recorded steps leave the weights of 20 eager ones, on changing batches.

    The same steps by hand twice show what the order of a GPU's additions does; with deterministic kernels, nothing.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    for exact, (precision, last) in product(
        (False, True), (("fp32", False), ("fp32", True), ("bf16", True), ("fp16", True))
    ):
        torch.use_deterministic_algorithms(exact, warn_only=True)
        row = {"case": f"{precision}{', channels last' if last else ''}", "deterministic": exact}
        try:
            once, again, graph = (weights_after(kind, precision, last, size) for kind in ("eager", "eager", "recorded"))
            row |= {"eager again": (once - again).abs().max().item(), "recorded": (once - graph).abs().max().item()}
            row |= {"equal": torch.equal(once, graph), "failed": None}
        except RuntimeError as problem:  # a kernel that cannot be recorded; the other cases go on
            row |= {"eager again": None, "recorded": None, "equal": None, "failed": str(problem).splitlines()[0][:200]}
        print(row, flush=True)
        yield row


def weights_after(kind: str, precision: str, last: bool, size: Size) -> Tensor:
    """All weights after 20 steps, "eager" or "recorded" (on a CPU eager, too)."""
    step = Step(size, precision=precision, last=last, fused=True)
    run = Recorded(step) if kind == "recorded" and GPU else step
    for n in range(20):
        run(step.images.roll(n, 0), step.masks.roll(n, 0))
    finish()
    return torch.cat([p.detach().flatten() for p in step.net.parameters()])


def step(size: Size) -> Rows:
    """A training step, one lever after the other."""
    for name, lever in LEVERS.items():
        options, search, graph = lever
        if only_on_gpu(*lever) and not GPU:
            continue
        torch.backends.cudnn.benchmark = search
        made = Step(size, **options)
        run = made.on(Recorded(made) if graph else made)
        yield row_of(name, run, size, FLOP=3 * work_of(size, size.batch), format=options.get("precision", "fp32"))


def batch(size: Size) -> Rows:
    """A step at several batch sizes: plain fp32, and the best setting eager and recorded."""
    torch.backends.cudnn.benchmark = True
    names = ["bf16, channels last, fused, search, recorded", "bf16, channels last, fused, search", "plain fp32"]
    for count, name in product(size.batches, names if GPU else ["bf16, channels last, fused"]):
        options, _, graph = LEVERS[name]
        made = Step(size, batch=count, **options)
        row = row_of(f"{name}, batch {count}", made.on(Recorded(made) if graph else made), size)
        form = options.get("precision", "fp32")
        limits = layers(fresh(size).cpu(), count, size, precision=form, training=True)
        row |= {"batch": count, "ms an image": row["ms"] / count, "FLOP": 3 * work_of(size, count)}
        yield row | {"layers": limits, "format": form}
        del made
        torch.cuda.empty_cache()


def inferences(net: NestedUNet, count: int, size: Size) -> dict[str, Callable[[], Any]]:
    """Ways to compute the logits of `count` images. "cast once" in the name: also without autocast around it."""
    images = torch.rand(count, 3, size.side, size.side, device=DEVICE)
    last = images.contiguous(memory_format=torch.channels_last)
    cast = folded(net).to(torch.bfloat16, memory_format=torch.channels_last)
    ways: dict[str, tuple[Callable, Tensor]] = {}
    for name, options in (
        ("plain fp32", {}),
        ("channels last", {"channels_last": True}),
        ("bf16 autocast, channels last", {"precision": "bf16", "channels_last": True}),
        ("channels last, norms folded", {"channels_last": True, "fold": True}),
        ("bf16, channels last, norms folded", {"precision": "bf16", "channels_last": True, "fold": True}),
    ):
        setting = Setting(DEVICE, **options)
        model = setting.for_inference(copy.deepcopy(net))
        ways[name] = (lambda x, setting=setting, model=model: setting.forward(model, x)), images
    ways["bf16 cast once, channels last, norms folded"] = cast, last.to(torch.bfloat16)
    recorded = ("plain fp32", "channels last, norms folded", "bf16 cast once, channels last, norms folded")
    for name in recorded if GPU else ():
        run, given = ways[name]
        ways[f"{name}, recorded"] = Recorded(run), given

    def closed(run: Callable, given: Tensor) -> Callable[[], Any]:
        @torch.inference_mode()
        def call() -> Any:
            return run(given)

        return call

    return {name: closed(*way) for name, way in ways.items()}


def inference(size: Size) -> Rows:
    """The logits of one image and of a batch; "change" is the largest of a logit, over the largest logit."""
    torch.backends.cudnn.benchmark = True
    for count in sorted({1, size.batch}):
        torch.manual_seed(1)
        ways = inferences(fresh(size), count, size)
        plain = torch.stack(ways["plain fp32"]()).float()
        for name, run in ways.items():
            change = (torch.stack(run()).float() - plain).abs().max() / plain.abs().max()
            yield row_of(f"{name}, batch {count}", run, size, batch=count, change=change.item())


def pruning(size: Size) -> Rows:
    """The net cut to each level, in the best way, beside the share of the MACs and of the convolutions' roofline."""
    torch.backends.cudnn.benchmark = True
    whole, name = fresh(size), "bf16 cast once, channels last, norms folded" + (", recorded" if GPU else "")
    for level in range(whole.depth, 0, -1):
        cut = whole.prune(level)
        limits = layers(cut.cpu(), size.batch, size, precision="bf16", training=False)
        run = inferences(whole.prune(level).to(DEVICE), size.batch, size)[name]
        yield row_of(f"L{level}", run, size, MACs=macs(cut, (size.side, size.side)), layers=limits, format="bf16")


def upsampling(size: Size) -> Rows:
    """U alone, in both layouts, and as two matrix products: where plain inference loses its time on a GPU."""
    for i, width in enumerate(size.widths[1:]):
        side = size.side >> (i + 1)
        x = torch.rand(size.batch, width, side, side, device=DEVICE)
        U = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        eye = torch.eye(side, device=DEVICE)[None, None]
        A = nn.functional.interpolate(eye, (2 * side, side), mode="bilinear", align_corners=True)[0, 0]
        last = x.contiguous(memory_format=torch.channels_last)
        for name, run in (
            ("NCHW", lambda x=x, U=U: U(x)),
            ("channels last", lambda x=last, U=U: U(x)),
            ("two matrix products", lambda x=x, A=A: A @ x @ A.T),
        ):
            yield row_of(f"{width} channels, {side} to {2 * side}, {name}", run, size)


def convolution(size: Size) -> Rows:
    """Every convolution of the net alone, forward in bf16 and channels last: how far each is from its roofline."""
    torch.backends.cudnn.benchmark = True
    net = fresh(size).to(torch.bfloat16, memory_format=torch.channels_last)
    shape = size.batch, 3, size.side, size.side
    limits, modules = convolution_costs(net, shape, number=2), dict(net.named_modules())
    for name, (flop, moved) in limits.items():
        conv, row = modules[name], int(name.removeprefix("conv")[0]) if name.startswith("conv") else 0
        x = torch.rand(size.batch, conv.in_channels, size.side >> row, size.side >> row, device=DEVICE)
        x = x.to(torch.bfloat16, memory_format=torch.channels_last)
        with torch.inference_mode():
            run = Recorded(conv) if GPU else conv
            timed = row_of(name, lambda run=run, x=x: run(x), size)
        yield timed | {"FLOP": flop, "layers": [(flop, moved)], "FLOP a byte": flop / moved, "format": "bf16"}


def profile(size: Size) -> Rows:
    """The kernels of a step (on a CPU its operations): all together, whose milliseconds beside those of `step` say how
    busy the device is, and the largest, with their share of these."""
    for case in ("plain fp32", "bf16, channels last, fused"):
        kernels = [event for event in events_of(case, size, 3) if not event.name.startswith("Optimizer.")]
        spent: dict[str, list[float]] = {}
        for event in kernels:
            spent.setdefault(event.name, []).append(time_of(event) / 1e6)
        busy = sum(map(sum, spent.values()))
        yield {"case": case, "kernel": "all", "calls": len(kernels) / 3, "ms": 1000 * busy / 3, "share": None}
        for name, times in sorted(spent.items(), key=lambda pair: -sum(pair[1]))[:12]:
            share, ms = sum(times) / busy, 1000 * sum(times) / 3
            yield {"case": case, "kernel": name[:90], "calls": len(times) / 3, "ms": ms, "share": share}


def events_of(case: str, size: Size, steps: int) -> list[Any]:
    """What the profiler saw of some steps: kernels on a GPU, else operations."""
    kinds = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if GPU else [])
    made = Step(size, **LEVERS[case][0])
    run = made.on(Recorded(made) if LEVERS[case][2] else made)
    for _ in range(10 if GPU else 1):
        run()
    finish()
    with torch.profiler.profile(activities=kinds) as seen:
        for _ in range(steps):
            run()
        finish()
    device = torch.autograd.DeviceType.CUDA if GPU else torch.autograd.DeviceType.CPU
    return [event for event in seen.events() if event.device_type == device and (GPU or event.name.startswith("aten"))]


def time_of(event: Any) -> float:
    """Microseconds of its own."""
    return event.device_time_total if GPU else event.self_cpu_time_total


def timeline(size: Size) -> Rows:
    """When each kernel of one step begins and how long it runs: [begin ms, ms] a kernel, one row a kind of kernel."""
    for case in ("plain fp32", "bf16, channels last, fused", "bf16, channels last, fused, recorded")[: 3 if GPU else 2]:
        seen, found = events_of(case, size, 1), {}
        begin = min(event.time_range.start for event in seen)
        for event in seen:
            if time_of(event) >= 1:  # microsecond
                when = [round((event.time_range.start - begin) / 1000, 3), round(time_of(event) / 1000, 3)]
                found.setdefault(kind_of(event.name), []).append(when)
        yield from ({"case": case, "kernel": kind, "when": spans} for kind, spans in sorted(found.items()))


def feeding(size: Size) -> Rows:
    """What it takes to have one changed batch on the device: images one by one, or whole batches where they lie."""
    train, count = draw(max(20, 10 * size.batch), size.side).train, size.batch
    there = train._replace(images=train.images.to(DEVICE), masks=train.masks.to(DEVICE))

    def one() -> None:
        for tensor in next(one_by_one(train, count, 0, workers=0)):
            tensor.to(DEVICE)

    def epoch() -> None:
        for _ in batches(there, count, Generator().manual_seed(0)):
            pass

    yield row_of("images one by one on the CPU", one, size)
    row = row_of("whole batches on the device", epoch, size)
    yield row | {key: row[key] / (len(train.ids) // count) for key in ("ms", "min", "max")}


def peers(size: Size) -> Rows:
    """Other people's UNet++ in plain fp32 with one head, ours beside them, and ours as the article writes it: node by
    node, with all heads. Libraries that are not installed are left out. Their nets are not ours: see "parameters".
    """
    nets: dict[str, Callable[[], nn.Module]] = {
        "ours": lambda: fresh(size, deep_supervision=False),
        "ours, all heads": lambda: fresh(size),
        "written out node by node, all heads": lambda: UnrolledNested(size.widths),
    }
    if importlib.util.find_spec("monai"):
        from monai.networks.nets import BasicUNetPlusPlus

        features = (*size.widths, size.widths[0])
        nets["MONAI BasicUNetPlusPlus"] = lambda: BasicUNetPlusPlus(2, 3, 1, features=features)
    if importlib.util.find_spec("segmentation_models_pytorch"):
        from segmentation_models_pytorch import UnetPlusPlus

        nets["segmentation-models UnetPlusPlus, resnet34"] = lambda: UnetPlusPlus("resnet34", encoder_weights=None)
    for name, make in nets.items():
        torch.manual_seed(0)
        made, net = Step(size, net=make()), make().to(DEVICE).eval()
        counted = {"parameters": parameters(net)}
        yield row_of(f"{name}, training step", made.on(made), size, **counted)
        with torch.inference_mode():
            yield row_of(f"{name}, inference", lambda net=net, made=made: net(made.images), size, **counted)


def compiled(size: Size) -> Rows:
    """torch.compile around the net, a step eager and recorded, and inference: the last lever."""
    torch.backends.cudnn.benchmark = True
    for graph in (False, True)[: 2 if GPU else 1]:
        made = Step(size, **BEST)
        made.net.compile()
        name = f"bf16, channels last, fused, compiled{', recorded' if graph else ''}"
        yield row_of(name, made.on(Recorded(made) if graph else made), size)
    setting = Setting(DEVICE, "bf16", channels_last=True, compile=True, fold=True)
    net, images = setting.for_inference(fresh(size)), made.images
    with torch.inference_mode():
        yield row_of("inference, bf16, norms folded, compiled", lambda: setting.forward(net, images), size)


def processes(size: Size) -> Rows:
    """The second epoch of `train` with one process and with two, a thread or a GPU each."""
    if GPU and torch.cuda.device_count() < 2:
        return
    train = ["train", "--data", "synthetic", "--size", str(size.side), "--batch-size", "16", "--epochs", "2"]
    train += ["--widths", "4", "8"] if size == TINY else ["--widths", "8", "16", "32", "64", "128"]
    for count in (1, 2):
        seconds = []
        for _ in range(max(1, size.blocks // 2)):
            with tempfile.TemporaryDirectory() as out:
                launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={count}", "-m"]
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                call = [*launch, "course_lib", *train, "--out", f"{out}/run"]
                subprocess.run(call, env=environment, stdout=subprocess.DEVNULL, check=True)
                with Path(out, "run", "log.csv").open(encoding="utf-8") as log:
                    seconds.append(1000 * float(list(csv.DictReader(log))[-1]["seconds"]))
        middle, case = statistics.median(seconds), f"{count} process{'es' * (count > 1)}"
        yield {"case": case, "ms": middle, "min": min(seconds), "max": max(seconds)}


STAGES: dict[str, Callable[[Size], Rows]] = {
    "peaks": peaks,
    "proof": proof,
    "step": step,
    "batch": batch,
    "inference": inference,
    "pruning": pruning,
    "upsampling": upsampling,
    "convolution": convolution,
    "profile": profile,
    "timeline": timeline,
    "feeding": feeding,
    "peers": peers,
    "processes": processes,
    "compile": compiled,
}
ONLY_GPU = ("proof", "timeline")  # on a CPU lesson 09 draws its own time line


def shares(stages: dict[str, list[Row]]) -> None:
    """Fill in what compares a time with the peaks of the same run or with its plain case, and drop what served that."""
    top = {row["case"].split()[-1]: row for row in stages.get("peaks", [])}
    for row in (row for rows in stages.values() for row in rows):
        work, limits, form = row.pop("FLOP", None), row.pop("layers", None), row.get("format", "bf16")
        if work and form in top:
            row["of peak"] = work / (row["ms"] / 1000) / top[form]["FLOP/s"]
        if limits and {form, "copy"} <= set(top):
            peak, bandwidth = top[form]["FLOP/s"], top["copy"]["bytes/s"]
            least = [roofline_seconds(*each, peak=peak, bandwidth=bandwidth) for each in limits]
            row["roofline ms"] = 1000 * sum(least)
            row["of roofline"] = row["roofline ms"] / row["ms"]
    for rows in (stages.get(name, []) for name in ("step", "inference", "feeding", "processes")):
        for row in rows:
            plain = next(first for first in rows if first.get("batch") == row.get("batch"))
            row["times as fast"] = plain["ms"] / row["ms"]
    whole = next((row for row in stages.get("pruning", [])), None)
    for row in stages.get("pruning", []):
        row["share of MACs"] = row["MACs"] / whole["MACs"]
        for share, column in (("MACs", "MACs"), ("roofline", "roofline ms")):
            if column in row:
                row[f"time over share of {share}"] = row["ms"] / whole["ms"] / (row[column] / whole[column])


def one_stage(name: str, size: Size, out: Path | None = None) -> list[Row]:
    """The rows of a stage, written to `out`/NAME.json after each of them: a deadline then loses one."""
    rows: list[Row] = []
    for row in STAGES[name](size):
        rows.append(row)
        if out is not None:
            write(out / f"{name}.json", as_json(rows))
    return rows


def joined(stages: dict[str, list[Row]]) -> list[Row]:
    """All rows as they are stored: each knows its stage."""
    shares(stages)
    return [{"stage": name, **row} for name, rows in stages.items() for row in rows]


@command
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--stages", nargs="+", choices=list(STAGES), default=[s for s in STAGES if GPU or s not in ONLY_GPU]
    )
    parser.add_argument("--tiny", action="store_true", help="small nets: a rehearsal")
    parser.add_argument("--store", action="store_true", help="write data/results/speed.json")
    parser.add_argument("--out", type=Path, help="folder for one file a stage")
    parser.add_argument("--batches", type=int, nargs="+", metavar="B", help="of the stage batch")
    options = parser.parse_args()
    size = TINY if options.tiny else Size()
    if options.batches:
        size = replace(size, batches=tuple(options.batches))
    here = machine()
    print(here, flush=True)
    stages = {name: one_stage(name, size, options.out) for name in options.stages}
    if options.out is None:
        rows = joined(stages)
        for name, some in stages.items():
            if some and name != "timeline":
                print(f"\n{name}\n{table(some)}")
        if options.store:
            print(store("speed", rows, about=ABOUT, command="python -m benchmarks.speed --store", measured=here))
    return 0


if __name__ == "__main__":
    sys.exit(main())
