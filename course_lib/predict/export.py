"""A trained net as an ONNX file, which runs without PyTorch, and the model card that belongs beside it."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from course_lib.errors import UserError
from course_lib.files import write
from course_lib.grid import NestedUNet
from course_lib.measure import macs, parameters
from course_lib.predict.fold import folded
from course_lib.predict.maps import QUIET, Head, probabilities, probability
from course_lib.predict.setting import Setting

OPSET = 23  # the newest that torch 2.13 says it exports
TOLERANCE = 1e-4  # of a probability
DATA_LICENCES = {  # as in data/README.md
    "synthetic": "drawn by the course (`course_lib/data/synthetic.py`), under the licence of its code",
    "bbbc038": "CC0; cite image set BBBC038 of the Broad Bioimage Benchmark Collection",
    "dsb2018-fluo": "CC0, as its original images; cite image set BBBC038 and the StarDist repository",
}
CARD = """# Model card: {wiring}

{about}

## Scores

Of masks at threshold 0.5 from the mean of all heads, computed by PyTorch.
{other_head}
{scores}

## The ONNX file

- Input `image`: float32 (N, {in_channels}, H, W), pixel values 0..255, H and W multiples of {step}. The file
  standardises each image, so give it whole images: a tile of background alone would be all noise.
- Output `probability`: float32 (N, {classes}, H, W), {output}.

## Limits

- Trained on images {made} {size}. Other sizes and magnifications: not measured.
- Other stains, tissues and microscopes than its data holds, and any medical use: not measured.
- One training with one seed: how far the scores of others would be apart is not known from it.
- It finds pixels, not objects. Counts, and borders between touching objects, come from a watershed afterwards
  (`course_lib.predict.instances.separate`), which cuts long objects and joins overlapping ones.

## Licence

- Weights: {licence}.
- Data: {data_licence}.
"""


def export_onnx(net: NestedUNet, path: str | Path, *, head: Head = "mean", facts: dict[str, Any] | None = None) -> Path:
    """Write the net as one ONNX file, once onnxruntime has computed the same from it as PyTorch from the net.

    It takes pixels as a program has them and standardises each image as `predict.standardise` does::

        image        float32 (N, in_channels, H, W), values 0..255; H and W any multiples of 2**depth
        probability  float32 (N, classes, H, W), what `predict.probability` gives for `head`

    A level k of a deeply supervised net is exported as `net.prune(k)`: a smaller file, and multiples of 2**k. Head,
    config and `facts` (from `checkpoint.load_model`) become the file's metadata; of a data folder, its name alone.

    Raises:
        UserError: missing packages, a net that is no grid, no such head, probabilities more than 1e-4 apart, or a
            folder that cannot be written. An old file then stays as it was.
    """
    if not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        raise UserError("ONNX export needs onnx, onnxscript and onnxruntime: pip install -e '.[export]'")
    net = copy.deepcopy(net).cpu()
    content = _onnx(net, head, facts or {})
    difference = _difference(content, net, head)
    if not difference <= TOLERANCE:  # also where it is not a number
        raise UserError(
            f"{path} is not written because its probabilities are up to {difference:.2g} off PyTorch's: install the "
            "torch of constraints.txt and the newest onnxscript and onnxruntime, then export again"
        )
    write(path, content)
    return Path(path)


def model_card(
    net: NestedUNet, facts: dict[str, Any], metrics: dict[str, Any], *, head: Head = "mean", licence: str | None = None
) -> str:
    """What a stranger must know about the file of `export_onnx`, as Markdown.

    Its numbers come from the arguments; what they lack is "not recorded" or "not measured yet".

    Args:
        facts: "data", "size" and "seed", from `checkpoint.load_model`.
        metrics: what `train` writes to metrics.json: the scores of the mean of heads under "val", and "test" if known.
        head: the one exported.
        licence: of the weights, where whoever trained the net has chosen one.

    Raises:
        UserError: no such head.
    """
    kept, data, side = _kept(net, head), facts.get("data"), facts.get("size")
    size, shape = side and f"{side}x{side}", (side, side)
    kind = kept.config.get("wiring", type(kept).__name__)
    made = {None: "of", "synthetic": "drawn by a program at"}.get(data, "resized to")
    made = "cut into tiles of" if facts.get("tiles") else made
    about = {
        "wiring": kind + (", deeply supervised" if kept.config["deep_supervision"] else ""),
        "widths": ", ".join(map(str, kept.config["widths"])),
        "parameters": f"{parameters(kept):,}",
        "MACs": size and f"{macs(kept, shape, in_channels=kept.config['in_channels']):,} for an image of {size}",
        "data": _without_path(facts).get("data"),
        "split": data and "by look and id: 60 % train, 20 % validation, 20 % test (`data/README.md`)",
        "image size": size,
        "seed": facts.get("seed"),
    }
    val, test = metrics.get("val", {}), metrics.get("test", {})
    scores = {name: " | ".join(_score(part.get(name)) for part in (val, test)) for name in val | test}
    mean = head == "mean" and len(net.heads) > 1
    return CARD.format(
        **{**kept.config, "wiring": kind},
        about=_table("| | |", about),
        other_head="" if mean or len(net.heads) == 1 else "The file holds one head; its scores: not measured yet.\n",
        scores=_table("| score | validation part | test part |", scores) if scores else "Not measured yet.",
        step=2**kept.depth,
        output=f"the mean of {len(net.heads)} heads" if mean else f"of the head on node x^{{0,{kept.depth}}}",
        made="cut at their own resolution into tiles of" if facts.get("tiles") else made,
        size=size or "a size that was not recorded",
        licence=licence or "not stated; ask whoever trained the net",
        data_licence=DATA_LICENCES.get(data, "the data's owner decides") if data else "not recorded",
    )


class _Program(nn.Module):
    """What the file computes: pixel values in, one probability map out."""

    def __init__(self, net: nn.Module, head: Head):
        super().__init__()
        self.net, self.head = net, head

    def forward(self, image: Tensor) -> Tensor:
        return probability(self.net(_standardise(image / 255)), self.head)


def _standardise(image: Tensor) -> Tensor:
    """`predict.standardise` with each mean taken one axis at a time.

    Over millions of pixels at once, the float32 sums of onnxruntime lose digits.
    """

    def mean(x: Tensor) -> Tensor:
        return x.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)

    centred = image - mean(image)
    return centred / (mean(centred * centred).sqrt() + QUIET)


def _kept(net: NestedUNet, head: Head) -> NestedUNet:
    """The part of the net that the head needs."""
    if not isinstance(net, NestedUNet):
        raise UserError(f"a {type(net).__name__} cannot be exported: give a U-Net or UNet++, or one of their kind")
    probability([torch.zeros(1)] * len(net.heads), head)  # refuses a head that is not there
    if head == "mean" or not net.config["deep_supervision"]:
        return net
    return net.prune(net.depth if head == -1 else head)


def _onnx(net: NestedUNet, head: Head, facts: dict[str, Any]) -> bytes:
    """The file's content. Its norms are folded into the convolutions, which saves bytes."""
    kept = folded(_kept(net, head))
    step, metadata = 2**kept.depth, {"head": head, **kept.config, **_without_path(facts)}
    with _without_two_remarks():
        model = torch.onnx.export(
            _Program(kept, "mean" if head == "mean" else -1).eval(),
            (torch.zeros(2, kept.config["in_channels"], 2 * step, 3 * step),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["probability"],
            dynamic_shapes=({0: Dim("N"), 2: step * Dim("rows"), 3: step * Dim("columns")},),
        ).model_proto
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")  # stack traces, with the paths of this machine
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=str(value))
    return model.SerializeToString()


def _difference(content: bytes, net: NestedUNet, head: Head) -> float:
    """The most that a probability of the ONNX file is off PyTorch's, on noise of several sizes and brightnesses."""
    from onnxruntime import InferenceSession

    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    generator, differences = torch.Generator().manual_seed(0), []
    for count, rows, columns in ((1, 3, 1), (3, 2, 5)):
        shape = (count, net.config["in_channels"], rows * 2**net.depth, columns * 2**net.depth)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        images //= torch.arange(1, count + 1, dtype=torch.uint8)[:, None, None, None]  # each darker than the one before
        found = session.run(["probability"], {"image": images.float().numpy()})[0]
        wanted = probabilities(net, images, head=head, setting=Setting("cpu"))
        differences.append((torch.from_numpy(found) - wanted).abs().max())
    return torch.stack(differences).max().item()


def _without_path(facts: dict[str, Any]) -> dict[str, Any]:
    return facts | {"data": Path(facts["data"]).absolute().name} if "data" in facts else facts


def _score(value: float | None) -> str:
    if value is None:
        return "not measured yet"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _table(header: str, rows: dict[str, Any]) -> str:
    lines = [f"| {name} | {'not recorded' if value is None else value} |" for name, value in rows.items()]
    return "\n".join([header, "|---" * (header.count("|") - 1) + "|", *lines])


@contextmanager
def _without_two_remarks() -> Iterator[None]:
    """Hold back what torch 2.13's exporter remarks about itself: torchvision is absent, and it copies an old object."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")

    def other(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    log.addFilter(other)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        log.removeFilter(other)
