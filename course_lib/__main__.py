"""The command line: python -m course_lib COMMAND, and --help lists the commands."""

import argparse
import importlib.util
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from course_lib import data, results
from course_lib.data import cache, mask_doctor, membranes, pixels
from course_lib.errors import UserError
from course_lib.files import write
from course_lib.grid import SKIPS, NestedUNet
from course_lib.lesson import colab, presets
from course_lib.measure import parameters
from course_lib.predict import PREPARATIONS, Head, probabilities
from course_lib.predict.apply import Applied, apply_to, objects, outlined, overlaid
from course_lib.predict.export import export_onnx, model_card
from course_lib.predict.facts import empty
from course_lib.predict.instances import instance_scores, separate
from course_lib.predict.setting import FORMATS, Setting, cpu_has_bf16, torch_device
from course_lib.predict.tables import COUNTS, NUCLEI, Table, as_csv
from course_lib.train import Recipe, checkpoint, distributed, evaluate, fit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 1 where `masks` has something to say, 2 for a user's mistake."""
    for stream in (sys.stdout, sys.stderr):  # a file name that the terminal cannot show is no reason to stop
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        status = options.command(options) or 0
        sys.stdout.flush()
        return status
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # of `... | head`: nobody reads on, and Python must not try once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        where = f"{problem.filename} cannot be used ({reason})" if problem.filename else reason
        print(f"error: {where}: check path, permissions and free space", file=sys.stderr)
        return 2
    except (MemoryError, torch.OutOfMemoryError):
        print("error: the memory does not suffice: use smaller widths, a smaller size or fewer images", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this one was, if it writes checkpoints", file=sys.stderr)
        return 130
    finally:
        distributed.stop()


def doctor(options: argparse.Namespace) -> int:
    """What this machine can do, what is missing, what to type."""
    cuda, facts = torch.cuda.is_available(), results.machine()
    for what in ("Python", "torch", "device"):
        print(f"{what:13} {facts[what.lower()]}")
    if not cuda:
        print(f"bfloat16      {'in hardware: --precision auto uses it' if cpu_has_bf16() else 'not in hardware'}")
    print(f"preset        {presets.resolve()} (COURSE_PRESET changes it)")
    folder = cache.folder()
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), Path.cwd())
    print(f"data cache    {folder} ({shutil.disk_usage(nearest).free / 1e9:.0f} GB free)")
    places = {name: os.environ.get(source.variable) for name, source in data.SOURCES.items()}
    for name, local in places.items():
        print(f"{name:13} {_where_is(name, local)}")
    wrong = any(local and not Path(local).is_file() for local in places.values())
    if missing := [name for name in colab.NOTEBOOK_PACKAGES if importlib.util.find_spec(name) is None]:
        print(f'missing       {", ".join(missing)}: pip install -e ".[notebooks]"')
    if not cuda:
        print("no GPU        every lesson runs without one; on Colab: Runtime, Change runtime type, T4 GPU")
    print("next          make course     (every lesson; the page is build/course/index.html)")
    return 2 if missing or wrong else 0


def _where_is(name: str, local: str | None) -> str:
    source, folder = data.SOURCES[name], cache.folder()
    if local:
        wrong = f"{source.variable} names {local}, which is not a file: correct or unset it"
        return f"from {local}" if Path(local).is_file() else wrong
    if (folder / cache.ARCHIVES / f"{name}.zip").is_file():
        return "downloaded"
    if sizes := sorted(path.name.split("-")[-2] for path in folder.glob(f"{name}-{source.sha256[:16]}-*.npz")):
        return f"prepared, without its archive: {', '.join(sizes)}"
    return f"not here: python -m course_lib data {name}, or set {source.variable}"


def fetch(options: argparse.Namespace) -> None:
    """Download an archive, check it, prepare it. The one command that uses the network."""
    classes = data.SECTIONS if options.name == "vnc" else None
    for part, split in data.load(options.name, options.size, classes=classes, download=True)._asdict().items():
        print(f"{options.name} {part}: {len(split.ids)} images of {options.size}x{options.size}")


def draw(options: argparse.Namespace) -> None:
    """Draw a folder of images and masks to practise with: tissue whose cells all touch."""
    folder = membranes.write_folder(options.folder, count=options.count, size=options.size, seed=options.seed)
    print(f"{folder}: {options.count} images of {options.size}x{options.size} in images/, their cells in masks/")


def masks(options: argparse.Namespace) -> int:
    """Say all that is wrong with a folder of images and masks; --mend writes a copy without it."""
    if options.mend:
        print(
            mask_doctor.report(mask_doctor.mend(options.folder, options.mend, options.size, classes=_classes(options)))
        )
        return 0
    findings = mask_doctor.examine(options.folder, options.size, classes=_classes(options))
    print(mask_doctor.report(findings))
    return int(any(finding.problem not in mask_doctor.NOTES for finding in findings))


def train(options: argparse.Namespace) -> None:
    """Train one net; write model.pt, checkpoint.pt, log.csv and metrics.json. The same call resumes."""
    distributed.start()
    first, out = distributed.rank() == 0, Path(options.out)
    setting, recipe = _setting(options), Recipe(batch_size=options.batch_size, lr=options.lr, seed=options.seed)
    shape = {"widths": options.widths, "wiring": options.wiring, "deep_supervision": options.deep_supervision}
    draft = empty(NestedUNet, shape)
    draft.check_shape((1, 3, options.size, options.size))
    if not first:
        distributed.wait()  # for the first one, which prepares the cache that the others then read
    splits = data.load(options.data, options.size, classes=_classes(options), tiles=options.tiles, progress=first)
    shape |= {"in_channels": splits.train.images.shape[1], "classes": len(splits.train.classes)}
    if first:
        distributed.wait()
    _ask_for_memory(draft, setting, splits.train.images[: options.batch_size // distributed.size()])
    torch.manual_seed(options.seed)
    net, rows, kept = NestedUNet(**shape), [], out / "checkpoint.pt"
    for row in fit(net, splits, epochs=options.epochs, recipe=recipe, setting=setting, checkpoint=kept):
        rows.append(row)
        if first:
            write(out / "log.csv", as_csv(rows, list(row)))
            print("epoch {epoch:3d}  loss {loss:.4f}  val IoU {val_iou:.4f}  {seconds:.1f} s".format(**row), flush=True)
    if first:
        facts = {"data": str(options.data), "size": options.size, "tiles": options.tiles, "seed": options.seed}
        facts |= {"classes": list(splits.train.classes)} if options.classes else {}
        facts |= {"shrink": data.SHRINK} if options.data == "vnc" and options.tiles else {}
        checkpoint.save_model(net, out / "model.pt", **facts)
        net, _ = checkpoint.load_model(out / "model.pt")
        scores, seconds = evaluate(net, splits.val, setting=setting), sum(row["seconds"] for row in rows)
        metrics = {"val": scores, "seconds": seconds, "machine": results.machine()}
        write(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        print(f"{out / 'model.pt'}: pooled IoU on the validation part {scores['iou_pooled']:.4f}, {seconds:.0f} s")


def _ask_for_memory(net: NestedUNet, setting: Setting, batch: torch.Tensor) -> None:
    """Ask at once for the least that a step holds: numpy then raises a MemoryError, torch a plain RuntimeError."""
    area = batch[:, 0].numel() if torch_device(setting.device).type == "cpu" else 0
    outputs = sum(2 * net.config["widths"][i] * area // 4**i for i, _ in net.nodes)  # of two convolutions a node
    np.empty(4 * parameters(net) + outputs, dtype=np.float32)  # 4: weights, gradients, two means of AdamW


def score(options: argparse.Namespace) -> None:
    """Score a model on one part of a data set, or on all of it: JSON on stdout."""
    net, facts = _model(options)
    of_nuclei = options.data == "synthetic" or (options.data in data.SOURCES and options.data != "vnc")
    count = net.config["classes"] if net.config["classes"] > 1 else None
    named = None if of_nuclei else facts.get("classes", count)
    if facts["shrink"] > 1 and options.data != "vnc":
        raise UserError(f"{options.model} is of images made {facts['shrink']} times smaller: evaluate it on vnc")
    splits = data.load(options.data, facts["size"], classes=named, tiles=facts["tiles"] and options.data != "synthetic")
    part = data.join(splits) if options.split == "all" else getattr(splits, options.split)
    if len(part.classes) != net.config["classes"]:
        there = f"{options.data} shows {len(part.classes)} class(es)"
        raise UserError(f"{there}, and {options.model} tells {net.config['classes']} apart: choose data of its classes")
    images, fourth = part.images.movedim(1, -1).numpy(), net.inputs != "standardised"
    images = pixels.as_channels(images, net.config["in_channels"], str(options.data), fourth=fourth)
    part = part._replace(images=torch.from_numpy(images).movedim(-1, 1).contiguous())
    metrics = evaluate(net, part, head=options.head, setting=_setting(options))
    if options.instances:
        maps = probabilities(net, part.images, head=options.head, setting=_setting(options))
        labels = part.labels if part.labels.ndim == 4 else part.labels[:, None]
        for k, name in enumerate(part.classes):
            found = instance_scores(maps[:, k : k + 1], labels[:, k], scale=options.scale)
            if (of_class := metrics["classes"][name] if len(part.classes) > 1 else metrics) is not None:
                of_class.update(found)
    report = {"data": str(options.data), "split": options.split, "images": len(part.ids), "head": options.head}
    report |= {"size": facts["size"], "tiles": facts["tiles"]}
    print(json.dumps(report | {"metrics": metrics}, indent=1))


def predict_files(options: argparse.Namespace) -> None:
    """Write a probability map and a mask for every image; with --instances also nuclei, outlines and two tables."""
    net, facts = _model(options)
    out, paths, setting = Path(options.out), [Path(path) for path in options.images], _setting(options)
    stems = Counter(path.stem.casefold() for path in paths)  # some systems take A.png and a.png for one
    if twice := [path.stem for path in paths if stems[path.stem.casefold()] > 1]:
        raise UserError(f"two images are called {twice[0]!r} and would overwrite each other: predict them apart")
    if own := next((path for path in paths if path.parent.resolve() == out.resolve()), None):
        raise UserError(f"{own} lies in {out}, where results could overwrite images: choose another folder for --out")
    size = None if options.native or facts["tiles"] else facts["size"]
    several = net.config["classes"] > 1
    names = facts.get("classes") or [str(k + 1) for k in range(net.config["classes"])]
    written = Counter(f"{path.stem}_{name}".casefold() for path in paths for name in names if several)
    if twice := [name for name, times in written.items() if times > 1]:
        raise UserError(f"files called {twice[0]} would be of two images: predict them apart")
    counts, nuclei = (Table(out / f"{name}.csv", (*columns, *["class"] * several), paths) for name, columns in TABLES)
    for path in paths:
        applied = apply_to(path, net, size=size, shrink=facts["shrink"], head=options.head, setting=setting)
        if several:
            write(out / f"{path.stem}_overlay.png", _as_png(overlaid(applied.image, applied.probability > 0.5, names)))
        for name, probability in zip(names, applied.probability, strict=True):
            stem = out / (f"{path.stem}_{name}" if several else path.stem)
            labels = _write_maps(stem, applied, probability, options.scale if options.instances else None)
            if labels is None:
                continue
            of_class = {"file": path.name} | ({"class": name} if several else {})
            rows = [of_class | row for row in objects(labels)]
            counts.add([of_class | {"nuclei": len(rows), "area": sum(row["area"] for row in rows)}])
            nuclei.add(rows)  # after every image: an interruption loses none
        print(out / f"{path.stem}_{'overlay' if several else 'mask'}.png", flush=True)


def _write_maps(stem: Path, applied: Applied, probability: np.ndarray, scale: float | None) -> np.ndarray | None:
    """The files of one class of one image, and its labels where objects are asked for, by a scale."""
    probability = torch.from_numpy(probability)  # whose arithmetic in place spares copies of a large map
    write(f"{stem}_mask.png", _as_png((probability > 0.5).to(torch.uint8).mul_(255).numpy()))
    labels = None if scale is None else separate(probability.numpy(), scale=applied.scale * scale)
    write(f"{stem}_probability.png", _as_png(probability.mul(255).round_().to(torch.uint8).numpy()))
    if labels is not None:
        ending, content = pixels.labels_file(labels)
        write(f"{stem}_instances{ending}", content)
        write(f"{stem}_outlines.png", _as_png(outlined(applied.image, labels)))
    return labels


def export(options: argparse.Namespace) -> None:
    """Write a model as an ONNX file, compared with PyTorch first, and a model card (.md) beside it."""
    net, facts = checkpoint.load_model(options.model, options.inputs)
    if Path(options.out).suffix != ".onnx":
        raise UserError(f"{options.out} does not end in .onnx: choose a name that does")
    scores = Path(options.model).with_name("metrics.json")
    try:
        metrics = json.loads(scores.read_text(encoding="utf-8")) if scores.is_file() else {}
    except (ValueError, RecursionError) as problem:
        raise UserError(f"{scores} is damaged: delete it, or train again") from problem
    path = export_onnx(net, options.out, head=options.head, facts=facts)
    card = path.with_suffix(".md")
    write(card, model_card(net, facts, metrics, head=options.head))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, probabilities as in PyTorch; {card}")


def _setting(options: argparse.Namespace) -> Setting:
    if options.precision == "auto":
        return Setting.fast(options.device)
    return Setting(options.device, options.precision, channels_last=torch_device(options.device).type == "cuda")


def _model(options: argparse.Namespace) -> tuple[NestedUNet, dict[str, Any]]:
    """The model and its facts; what its file does not say must be said by options."""
    net, facts = checkpoint.load_model(options.model, options.inputs)
    facts = {key: value for key, value in facts.items() if value is not None}
    if options.size and facts.get("size", options.size) != options.size:
        raise UserError(f"{options.model} says that its size is {facts['size']}, not {options.size}: leave --size out")
    if not (options.size or "size" in facts or getattr(options, "native", False)):
        text = "does not say at which size its net was trained"
        raise UserError(f"{options.model} {text}: say it with --size, and with --tiles if images were cut")
    return net, {"size": options.size, "tiles": options.tiles, "shrink": 1} | facts


def _as_png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="png")
    return file.getvalue()


def _classes(options: argparse.Namespace) -> list[str] | int | None:
    """Names of classes; one number is their count."""
    named = options.classes
    return int(named[0]) if named and len(named) == 1 and named[0].isdecimal() and named[0].isascii() else named


def _number(kind: type, fits: Callable[[float], bool], what: str) -> Callable[[str], float]:
    """What argparse calls with the text of an option."""

    def parsed(text: str) -> float:
        with suppress(ValueError):
            if fits(kind(text)):
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")

    return parsed


def _head(text: str) -> Head:
    if text != "mean" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no head: use mean, 1, 2, 3 ...")
    return text if text == "mean" else int(text)


TABLES = (("counts", COUNTS), ("nuclei", NUCLEI))
COUNT = _number(int, lambda n: 0 < n <= 10**6, "a whole number from 1 to 1000000")
SEED = _number(int, lambda n: 0 <= n < 2**32, f"a whole number from 0 to {2**32 - 1}")
SIDE = _number(int, lambda n: 16 <= n <= 4096, "a number of pixels from 16 to 4096")
WIDTH = _number(int, lambda n: 0 < n <= 2**20, f"a number of channels from 1 to {2**20}")
REAL = _number(float, lambda x: 0 < x <= 1e30, "a number above zero, up to 1e30")
SCALE = _number(float, lambda x: 0 < x <= 1000, "a number above zero, up to 1000")
COMPUTING = ("--device", "--precision")
FROM_FILE = ("--model", "--inputs", "--size", "--tiles")
SHARED = {  # options of several commands
    "--model": {"required": True},
    "--out": {"required": True, "metavar": "DIR"},
    "--inputs": {"choices": list(PREPARATIONS), "help": "how images are prepared, where the file does not say it"},
    "--size": {"type": COUNT, "help": "side of the images it was trained on, where the file does not say it"},
    "--tiles": {"action": "store_true", "help": "that they were cut into tiles, where the file does not say it"},
    "--head": {"type": _head, "default": "mean", "help": "mean, or a level 1, 2, 3 ..."},
    "--scale": {"type": SCALE, "default": 1, "help": "with --instances: 2 where objects are cut in two, and so on"},
    "--device": {"default": "auto", "help": "auto, cpu, cuda"},
    "--classes": {
        "nargs": "+",
        "metavar": "NAME",
        "help": "names of the classes that masks tell apart, or their count",
    },
    "--precision": {"default": "auto", "choices": ["auto", *FORMATS], "help": "of the convolutions"},
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m course_lib", description="UNet++ from the ground up.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable, *shared: str) -> Callable:
        about = command.__doc__ or ""  # python -OO has none
        sub = commands.add_parser(name, help=about.partition("\n")[0], description=about)
        sub.set_defaults(command=command)
        for flag in shared:
            sub.add_argument(flag, **SHARED[flag])
        return sub.add_argument

    add("doctor", doctor)
    option = add("data", fetch)
    option("name", choices=list(data.SOURCES))
    option("--size", type=COUNT, default=96)
    option = add("draw", draw)
    option("folder")
    option("--count", type=COUNT, default=30)
    option("--size", type=SIDE, default=256, help="side of the images, in pixels")
    option("--seed", type=SEED, default=0)
    option = add("masks", masks, "--classes")
    option("folder", help="holds images/ and masks/")
    option("--size", type=COUNT, default=96, help="side at which you want to train, in pixels")
    option("--mend", metavar="DIR", help="a new folder for the mended copy")
    option = add("train", train, "--out", "--classes", *COMPUTING)
    option("--data", default="synthetic", metavar="NAME|FOLDER")
    option("--wiring", default="unet++", choices=list(SKIPS))
    option("--deep-supervision", action="store_true")
    option("--widths", type=WIDTH, nargs="+", default=[32, 64, 128, 256, 512], metavar="W")
    option("--size", type=COUNT, default=96, help="side of the images, in pixels")
    option("--tiles", action="store_true", help="cut images into tiles of that side in place of resizing")
    option("--epochs", type=COUNT, default=20)
    option("--batch-size", type=COUNT, default=Recipe.batch_size, help="over all processes together")
    option("--lr", type=REAL, default=Recipe.lr, help="highest learning rate")
    option("--seed", type=SEED, default=0)
    _add_uses(add)
    return parser


def _add_uses(add: Callable) -> None:
    """The commands that use a model."""
    option = add("evaluate", score, *FROM_FILE, "--head", "--scale", *COMPUTING)
    option("--data", required=True, metavar="NAME|FOLDER")
    option("--split", default="test", choices=["train", "val", "test", "all"])
    option("--instances", action="store_true", help="also score nuclei one by one: average precision")
    option = add(
        "predict",
        predict_files,
        "--model",
        "--inputs",
        "--size",
        "--tiles",
        "--out",
        "--head",
        "--scale",
        "--device",
        "--precision",
    )
    option("images", nargs="+", metavar="IMAGE")
    option("--instances", action="store_true", help="also number the nuclei, touching ones apart")
    option("--native", action="store_true", help="keep the image's resolution, as --tiles does (vnc halves it)")
    option = add("export", export, "--model", "--inputs", "--head")
    option("--out", required=True, metavar="FILE.onnx")


if __name__ == "__main__":
    sys.exit(main())
