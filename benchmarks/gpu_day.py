"""What one GPU does, in one command, for a card that is rented by the minute.

    python -m benchmarks.gpu_day --out DIR [--seconds 420] [--tiny] [--store]

Stages run one after the other, each in a process of its own with a deadline: one that fails, hangs or crashes the
driver is reported, and the next begins; one that no longer fits is skipped and said so. Each writes DIR/STAGE.json row
by row. --tiny takes small nets and few repeats: on a CPU it rehearses everything but the recording, in two minutes.
--store joins what was measured in data/results/gpu_day.json.

Times are of blocks of one case after ten steps that warm up, between CUDA events; "ms" is the median of the blocks.
"of peak" is the convolutions' arithmetic over the time, as a share of what a large matrix product reached in the stage
`peaks` in the same number format (for fp32 that is TF32, which PyTorch's convolutions use). "of roofline" is the time
that the convolutions need at the peak or at the memory's bandwidth, whichever is longer for each, over the time taken.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.files import write
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice, deep_supervision
from course_lib.measure import macs
from course_lib.predict.recorded import Recorded
from course_lib.predict.setting import folded
from course_lib.results import as_json, machine, store, table
from tools.command import command

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DEADLINES = {  # seconds, in this order; the start of Python and CUDA included
    "peaks": 45,
    "proof": 75,
    "step": 120,
    "batch": 120,
    "inference": 75,
    "pruning": 60,
    "upsampling": 45,
    "profile": 60,
    "compile": 150,
}
ABOUT = "One GPU, measured in one command: UNet++ with all heads, widths 32 to 512, images of 96x96."
Row = dict[str, Any]
LOSS = deep_supervision(bce_dice)


class Size:
    """How large everything is."""

    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    side, batch, blocks, steps = 96, 16, 5, 20
    batches: tuple[int, ...] = (1, 4, 16, 64, 256)

    @classmethod
    def tiny(cls) -> None:
        cls.widths, cls.side, cls.batch, cls.blocks, cls.steps, cls.batches = (4, 6, 8, 8, 10), 32, 2, 2, 2, (1, 2)


def fresh() -> NestedUNet:
    torch.manual_seed(0)
    return NestedUNet(widths=Size.widths, deep_supervision=True).to(DEVICE)


def finish() -> None:
    if GPU:
        torch.cuda.synchronize()


def milliseconds(run: Callable[[], Any]) -> list[float]:
    """Of one call, the mean over each of several blocks."""
    for _ in range(10 if GPU else 1):
        run()
    found = []
    for _ in range(Size.blocks):
        finish()
        start = time.perf_counter()
        if GPU:
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
        for _ in range(Size.steps):
            run()
        if GPU:
            events[1].record()
            finish()
            found.append(events[0].elapsed_time(events[1]) / Size.steps)
        else:
            found.append(1000 * (time.perf_counter() - start) / Size.steps)
    return found


def row_of(case: str, run: Callable[[], Any], **more: Any) -> Row:
    ms = milliseconds(run)
    row = {"case": case, "ms": statistics.median(ms), "min": min(ms), "max": max(ms), **more}
    print(f"{case:44} {row['ms']:8.3f} ms", flush=True)
    return row


class Step:
    """A training step: forward, the loss on all heads, backward, AdamW."""

    def __init__(self, *, precision: str = "fp32", last: bool = False, fused: bool = False, batch: int = 0):
        batch = batch or Size.batch
        self.net, self.format = fresh().train(), FORMATS[precision]
        self.layout = torch.channels_last if last else torch.contiguous_format
        self.net.to(memory_format=self.layout)
        options = {"fused": True, "capturable": GPU} if fused else {}  # else as PyTorch chooses, which is foreach
        rate = torch.tensor(1e-3, device=DEVICE) if fused and GPU else 1e-3
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=rate, eps=1e-5, **options)
        # On GPUs fp16 needs its loss scaled: 2**10, as the course does; the gradients are divided again.
        self.scale = 2.0**10 if precision == "fp16" else 1.0
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(batch, 3, Size.side, Size.side, generator=generator)
        self.masks = (images[:, :1] > 0.5).float().to(DEVICE)
        self.images = images.to(DEVICE, memory_format=self.layout)

    def __call__(self, images: Tensor, masks: Tensor) -> Tensor:
        self.optimiser.zero_grad()
        with torch.autocast(DEVICE, self.format, enabled=self.format != torch.float32):
            outputs = self.net(images)
        loss = LOSS(outputs, masks)
        (loss * self.scale).backward()
        if self.scale != 1:
            torch._foreach_div_([p.grad for p in self.net.parameters()], self.scale)
        self.optimiser.step()
        return loss.detach()

    def on(self, run: Callable) -> Callable[[], Any]:
        """A call without arguments of `run`, which is this step or its recording."""
        return lambda: run(self.images, self.masks)


def peaks() -> Iterator[Row]:
    """Arithmetic of a matrix product of 8192 x 8192; bandwidth of a copy of 1 GiB, reading and writing counted."""
    side, rows = (8192, 2**28) if GPU else (256, 2**20)
    torch.backends.cuda.matmul.allow_tf32 = True
    for name, form in FORMATS.items():
        a = torch.rand(side, side, device=DEVICE).to(form)
        row = row_of(f"matrix product {name}", lambda a=a: a @ a)
        yield row | {"FLOP/s": 2 * side**3 / row["min"] * 1000}
    x = torch.rand(rows, device=DEVICE)
    y = torch.empty_like(x)
    row = row_of("copy", lambda: y.copy_(x))
    yield row | {"bytes/s": 2 * x.numel() * x.element_size() / row["min"] * 1000}


def proof() -> Iterator[Row]:
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
            once, again, graph = (weights_after(kind, precision, last) for kind in ("eager", "eager", "recorded"))
            row |= {"eager again": (once - again).abs().max().item(), "recorded": (once - graph).abs().max().item()}
            row |= {"equal": torch.equal(once, graph), "failed": None}
        except RuntimeError as problem:  # a kernel that cannot be recorded; the other cases go on
            row |= {"eager again": None, "recorded": None, "equal": None, "failed": str(problem).splitlines()[0][:200]}
        print(row, flush=True)
        yield row


def weights_after(kind: str, precision: str, last: bool) -> Tensor:
    """All weights after 20 steps, "eager" or "recorded" (on a CPU eager, too)."""
    step = Step(precision=precision, last=last, fused=True)
    run = Recorded(step) if kind == "recorded" and GPU else step
    for n in range(20):
        run(step.images.roll(n, 0), step.masks.roll(n, 0))
    finish()
    return torch.cat([p.detach().flatten() for p in step.net.parameters()])


def step() -> Iterator[Row]:
    """A training step, one lever after the other."""
    work = 6.0 * Size.batch * macs(fresh().cpu(), (Size.side, Size.side))
    levers: list[tuple[str, Row, bool, bool]] = [  # name, of Step, cuDNN search, recorded
        ("plain fp32", {}, False, False),
        ("fused AdamW", {"fused": True}, False, False),
        ("channels last, fused", {"last": True, "fused": True}, False, False),
        ("bf16, channels last, fused", {"precision": "bf16", "last": True, "fused": True}, False, False),
        ("fp16, channels last, fused", {"precision": "fp16", "last": True, "fused": True}, False, False),
        ("bf16, channels last, fused, search", {"precision": "bf16", "last": True, "fused": True}, True, False),
        ("fp32, fused, recorded", {"fused": True}, False, True),
        ("channels last, fused, search, recorded", {"last": True, "fused": True}, True, True),
        ("bf16, fused, search, recorded", {"precision": "bf16", "fused": True}, True, True),
        ("bf16, channels last, fused, recorded", {"precision": "bf16", "last": True, "fused": True}, False, True),
        (
            "bf16, channels last, fused, search, recorded",
            {"precision": "bf16", "last": True, "fused": True},
            True,
            True,
        ),
        (
            "fp16, channels last, fused, search, recorded",
            {"precision": "fp16", "last": True, "fused": True},
            True,
            True,
        ),
    ]
    for name, options, search, graph in levers:
        if graph and not GPU:
            continue
        torch.backends.cudnn.benchmark = search
        made = Step(**options)
        run = made.on(Recorded(made) if graph else made)
        yield row_of(name, run, FLOP=work, format=options.get("precision", "fp32"))


def batch() -> Iterator[Row]:
    """A step at several batch sizes: plain fp32, and the best setting eager and recorded."""
    torch.backends.cudnn.benchmark = True
    Size.blocks, Size.steps = min(3, Size.blocks), min(10, Size.steps)  # the largest take a second each
    for count in Size.batches:
        work = 6.0 * count * macs(fresh().cpu(), (Size.side, Size.side))
        best = {"precision": "bf16", "last": True, "fused": True}
        for name, options, graph in (
            ("bf16, channels last, fused, search, recorded", best, True),
            ("bf16, channels last, fused, search", best, False),
            ("plain fp32", {}, False),
        ):
            if graph and not GPU:
                continue
            made = Step(batch=count, **options)
            row = row_of(f"{name}, batch {count}", made.on(Recorded(made) if graph else made))
            form = options.get("precision", "fp32")
            layers = roofline(fresh().cpu(), count, training=True, number=FORMATS[form].itemsize)
            row |= {"batch": count, "ms an image": row["ms"] / count, "FLOP": work, "layers": layers, "format": form}
            yield row
            del made
            torch.cuda.empty_cache()


def roofline(net: nn.Module, count: int, *, training: bool, number: int = 2) -> list[tuple[float, float]]:
    """(FLOP, bytes) of each convolution, `number` bytes a number; in training thrice, forward and both gradients."""
    found: list[tuple[float, float]] = []

    def note(conv: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        taps = conv.weight.numel() // conv.out_channels
        flop = 2.0 * output.numel() * taps
        moved = number * (inputs[0].numel() + output.numel() + conv.weight.numel())
        found.extend([(flop, moved)] * (3 if training else 1))

    shadow = copy.deepcopy(net).to("meta").eval()
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    shadow(torch.empty(count, 3, Size.side, Size.side, device="meta"))
    return found


def inferences(net: NestedUNet, count: int) -> dict[str, Callable[[], Any]]:
    """Ways to compute the logits of `count` images."""
    images = torch.rand(count, 3, Size.side, Size.side, device=DEVICE)
    last, low = images.contiguous(memory_format=torch.channels_last), torch.bfloat16
    plain = copy.deepcopy(net).eval()
    channels = copy.deepcopy(net).eval().to(memory_format=torch.channels_last)
    small = folded(net).to(memory_format=torch.channels_last)
    cast = copy.deepcopy(small).to(low)

    def autocast(images: Tensor) -> list[Tensor]:
        with torch.autocast(DEVICE, low):
            return channels(images)

    ways: dict[str, tuple[Callable, Tensor]] = {
        "plain fp32": (plain, images),
        "channels last": (channels, last),
        "bf16 autocast, channels last": (autocast, last),
        "channels last, norms folded": (small, last),
        "bf16 cast once, channels last, norms folded": (cast, last.to(low)),
    }
    if GPU:
        for name in ("plain fp32", "channels last, norms folded", "bf16 cast once, channels last, norms folded"):
            run, given = ways[name]
            ways[f"{name}, recorded"] = (Recorded(run), given)

    def closed(run: Callable, given: Tensor) -> Callable[[], Any]:
        @torch.inference_mode()
        def call() -> Any:
            return run(given)

        return call

    return {name: closed(*way) for name, way in ways.items()}


def inference() -> Iterator[Row]:
    """The logits of one image and of a batch."""
    torch.backends.cudnn.benchmark = True
    for count in sorted({1, Size.batch}):
        for name, run in inferences(fresh(), count).items():
            yield row_of(f"{name}, batch {count}", run, batch=count)


def pruning() -> Iterator[Row]:
    """The net cut to each level, in the best way; "time over share" is of MACs, and of the convolutions' roofline."""
    torch.backends.cudnn.benchmark = True
    whole, name = fresh(), "bf16 cast once, channels last, norms folded" + (", recorded" if GPU else "")
    for level in range(whole.depth, 0, -1):
        cut = whole.prune(level)
        layers = roofline(cut.cpu(), Size.batch, training=False)
        run = inferences(whole.prune(level), Size.batch)[name]
        yield row_of(f"L{level}", run, MACs=macs(cut, (Size.side, Size.side)), layers=layers)


def upsampling() -> Iterator[Row]:
    """U alone, in both layouts, and as two matrix products: where plain inference loses its time."""
    for i, width in enumerate(Size.widths[1:]):
        side = Size.side >> (i + 1)
        x = torch.rand(Size.batch, width, side, side, device=DEVICE)
        U = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        eye = torch.eye(side, device=DEVICE)[None, None]
        A = nn.functional.interpolate(eye, (2 * side, side), mode="bilinear", align_corners=True)[0, 0]
        last = x.contiguous(memory_format=torch.channels_last)
        for name, run in (
            ("NCHW", lambda x=x, U=U: U(x)),
            ("channels last", lambda x=last, U=U: U(x)),
            ("two matrix products", lambda x=x, A=A: A @ x @ A.T),
        ):
            yield row_of(f"{width} channels, {side} to {2 * side}, {name}", run)


def profile() -> Iterator[Row]:
    """The kernels of a step: all together, whose milliseconds beside those of `step` say how busy the GPU is, and the
    largest, with their share of these."""
    kinds = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if GPU else [])
    for case, options in (
        ("plain fp32", {}),
        ("bf16, channels last, fused", {"precision": "bf16", "last": True, "fused": True}),
    ):
        run = (made := Step(**options)).on(made)
        for _ in range(10 if GPU else 1):
            run()
        finish()
        with torch.profiler.profile(activities=kinds) as seen:
            for _ in range(3):
                run()
            finish()
        on_gpu = [event for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        kernels = [event for event in on_gpu if not event.name.startswith("Optimizer.")]  # these frame kernels
        spent: dict[str, list[float]] = {}
        for event in kernels:
            spent.setdefault(event.name, []).append(event.device_time_total)
        busy = sum(map(sum, spent.values())) / 1e6
        yield {"case": case, "kernel": "all", "calls": len(kernels) / 3, "ms": 1000 * busy / 3, "share": None}
        for name, times in sorted(spent.items(), key=lambda pair: -sum(pair[1]))[:12]:
            share = sum(times) / 1e6 / busy
            yield {"case": case, "kernel": name[:90], "calls": len(times) / 3, "ms": sum(times) / 3000, "share": share}


def compiled() -> Iterator[Row]:
    """torch.compile around the net, eager and recorded: the last lever."""
    for graph in (False, True)[: 2 if GPU else 1]:
        torch.backends.cudnn.benchmark = True
        made = Step(precision="bf16", last=True, fused=True)
        made.net.compile()
        name = f"bf16, channels last, fused, search, compiled{', recorded' if graph else ''}"
        yield row_of(name, made.on(Recorded(made) if graph else made))


STAGES: dict[str, Callable[[], Iterator[Row]]] = {
    "peaks": peaks,
    "proof": proof,
    "step": step,
    "batch": batch,
    "inference": inference,
    "pruning": pruning,
    "upsampling": upsampling,
    "profile": profile,
    "compile": compiled,
}


def shares(stages: dict[str, list[Row]]) -> None:
    """Fill in what compares a time with the peaks of the same run, and drop what served only for that."""
    top = {row["case"].split()[-1]: row for row in stages.get("peaks", [])}
    for row in (row for rows in stages.values() for row in rows):
        work, layers, form = row.pop("FLOP", None), row.pop("layers", None), row.get("format", "bf16")
        if work and form in top:
            row["of peak"] = work / (row["ms"] / 1000) / top[form]["FLOP/s"]
        if layers and {form, "copy"} <= set(top):
            peak, bandwidth = top[form]["FLOP/s"], top["copy"]["bytes/s"]
            row["roofline ms"] = 1000 * sum(max(flop / peak, moved / bandwidth) for flop, moved in layers)
            row["of roofline"] = row["roofline ms"] / row["ms"]
    for rows in (stages.get("step", []), stages.get("inference", [])):
        for row in rows:
            plain = next(first for first in rows if first.get("batch") == row.get("batch"))
            row["times as fast"] = plain["ms"] / row["ms"]


def one_stage(name: str, out: Path) -> None:
    rows: list[Row] = []
    for row in STAGES[name]():
        rows.append(row)
        write(out / f"{name}.json", as_json(rows))  # after each row: a deadline loses one


def all_stages(out: Path, seconds: float, *, tiny: bool) -> dict[str, list[Row]]:
    """Run what fits; the rows of each stage that has written some."""
    begun, found = time.monotonic(), {}
    for name, deadline in DEADLINES.items():
        left = seconds - (time.monotonic() - begun)
        if left < deadline / 2:
            print(f"{name}: skipped, {left:.0f} s are left and it may take {deadline}", flush=True)
            continue
        command = [sys.executable, "-m", "benchmarks.gpu_day", "--out", str(out), "--stage", name]
        started = time.monotonic()
        try:
            status = subprocess.run(command + ["--tiny"] * tiny, timeout=min(deadline, left)).returncode
        except subprocess.TimeoutExpired:
            status = "its deadline passed"
        said = "done" if status == 0 else f"ended with {status}"
        print(f"== {name}: {said}, {time.monotonic() - started:.0f} s", flush=True)
        if (file := out / f"{name}.json").is_file():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    return found


@command
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the stages' files")
    parser.add_argument("--seconds", type=float, default=420, help="for everything together")
    parser.add_argument("--tiny", action="store_true", help="small nets: a rehearsal")
    parser.add_argument("--store", action="store_true", help="write data/results/gpu_day.json")
    parser.add_argument("--stage", choices=list(STAGES), help="this one alone, in this process")
    parser.add_argument("--batches", type=int, nargs="+", metavar="B", help="of the stage batch; default: 1 to 256")
    options = parser.parse_args()
    if options.tiny:
        Size.tiny()
    Size.batches = tuple(options.batches or Size.batches)
    if options.stage:
        one_stage(options.stage, options.out)
        return 0
    here = machine()
    print(here, flush=True)
    stages = all_stages(options.out, options.seconds, tiny=options.tiny)
    shares(stages)
    rows = [{"stage": name, **row} for name, rows in stages.items() for row in rows]
    command = f"python -m benchmarks.gpu_day --out DIR --seconds {options.seconds:g}"
    folder = {} if options.store else {"folder": options.out}
    print(store("gpu_day", rows, about=ABOUT, command=command, measured=here, **folder))
    for name, some in stages.items():
        print(f"\n{name}\n{table(some)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
