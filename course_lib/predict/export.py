"""A trained net as an ONNX file, which runs without PyTorch, and the model card that belongs beside it."""

import copy
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from course_lib import results
from course_lib.data import licence_of
from course_lib.errors import UserError
from course_lib.files import write
from course_lib.grid import NestedUNet
from course_lib.measure import macs, parameters
from course_lib.predict.facts import checked
from course_lib.predict.facts import metrics as metrics_of
from course_lib.predict.maps import PREPARATIONS, QUIET, Head, inputs_of, probabilities, probability
from course_lib.predict.setting import Setting, folded, unwrapped

SPLITS = "by look and id: 60 % train, 20 % validation, 20 % test", "by section: 8 to 19 train, 4 to 7 val, 0 to 3 test"
TILED = "cut at their own resolution into tiles of"
SHRUNK = "made {shrink} times smaller (do so before you give it one) and cut into tiles of"
PREPARED = {
    "standardised": "it standardises each image, so give it whole ones: a tile of background alone would be all noise",
    "scaled": "by 255",
    "imagenet": "by 255, then by the mean and the deviation of ImageNet's images",
}


def export_onnx(net: NestedUNet, path: str | Path, *, head: Head = "mean", facts: dict[str, Any] | None = None) -> Path:
    """Write the net as one ONNX file, once onnxruntime has computed the same from it as PyTorch from the net.

    It takes pixels as a program has them and prepares them as the net wants it (`predict.PREPARATIONS`)::

        image        float32 (N, in_channels, H, W), values 0..255; H and W any multiples of 2**depth
        probability  float32 (N, classes, H, W), what `predict.probability` gives for `head`

    A level k of a deeply supervised net is exported as `net.prune(k)`: a smaller file, and multiples of 2**k. Head,
    config and `facts` (from `checkpoint.load_model`) become the file's metadata; of a data folder, its name alone.
    Raises UserError: missing packages, a net that is no grid, no such head, probabilities more than 1e-4 apart, or a
    folder that cannot be written. An old file then stays as it was.
    """
    if not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        raise UserError("ONNX export needs onnx, onnxscript and onnxruntime: pip install -e '.[export]'")
    net, facts = copy.deepcopy(unwrapped(net)).cpu(), checked(facts or {}, str(path))
    content = _onnx(net, head, facts)
    difference = _difference(content, net, head)
    if not difference <= 1e-4:  # also where it is not a number
        raise UserError(
            f"{path} is not written because its probabilities are up to {difference:.2g} off PyTorch's: install the "
            "torch of constraints.txt and the newest onnxscript and onnxruntime, then export again"
        )
    write(path, content)
    return Path(path)


def model_card(net: NestedUNet, facts: dict[str, Any], metrics: dict[str, Any], *, head: Head = "mean") -> str:
    """What a stranger must know about the file of `export_onnx`, as Markdown.

    Its numbers come from the facts of `checkpoint.load_model` ("data", "size", "tiles", "seed") and from metrics.json
    of `train` (scores of the mean of heads under "val", and "test" if known); what they lack is "not recorded" or
    "not measured yet". Raises UserError: no such head.
    """
    net, facts = unwrapped(net), checked(facts, "the model")
    kept, data, side = _kept(net, head), facts.get("data"), facts.get("size")
    parts = metrics_of(metrics, "metrics.json")
    kind, size = kept.config.get("wiring", type(kept).__name__), side and f"{side}x{side}"
    mean = head == "mean" and len(net.heads) > 1
    made = {None: "of", "synthetic": "drawn by a program at"}.get(data, "resized to")
    about = {
        "wiring": kind + (", deeply supervised" if kept.config["deep_supervision"] else ""),
        "widths": ", ".join(map(str, kept.config["widths"])),
        "parameters": f"{parameters(kept):,}",
        "MACs": size and f"{macs(kept, (side, side), in_channels=kept.config['in_channels']):,} for an image of {size}",
        "classes": ", ".join(facts.get("classes") or [str(kept.config["classes"])]),
        "inputs": kept.inputs,
        "data": data and Path(data).absolute().name,
        "split": data and SPLITS[data == "vnc"] + " (`data/README.md`)",
        "image size": size,
        "seed": facts.get("seed"),
    }
    rows = [{"fact": key, "value": "not recorded" if value is None else str(value)} for key, value in about.items()]
    card = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    return card.format(
        **{**kept.config, "wiring": kind},
        about=results.markdown(rows),
        other_head="" if mean or len(net.heads) == 1 else "The file holds one head; its scores: not measured yet.\n",
        scores=_scores({"validation part": parts.get("val", {}), "test part": parts.get("test", {})}),
        step=2**kept.depth,
        prepared=PREPARED[kept.inputs],
        output=f"the mean of {len(net.heads)} heads" if mean else f"of the head on node x^{{0,{kept.depth}}}",
        made=(SHRUNK if facts.get("shrink", 1) > 1 else TILED).format(**facts) if facts.get("tiles") else made,
        size=size or "a size that was not recorded",
        data_licence=(licence_of(data) or "the data's owner decides") if data else "not recorded",
    )


def _scores(parts: dict[str, dict[str, float]]) -> str:
    rows: dict[str, dict[str, Any]] = {}
    for part, scores in parts.items():
        classes = scores.get("classes", {})
        each = {f"{name}, {key}": value for name, one in classes.items() for key, value in (one or {}).items()}
        for name, value in ({key: value for key, value in scores.items() if key != "classes"} | each).items():
            row = rows.setdefault(name, {"score": name})
            row[part] = f"{value:.4f}" if isinstance(value, float) else value
    return results.markdown([*rows.values()], ["score", *parts]) if rows else "Not measured yet."


class _Program(nn.Module):
    """What the file computes: pixel values in, one probability map out.

    It standardises with each mean taken one axis at a time: over millions of pixels at once, the float32 sums of
    onnxruntime lose digits.
    """

    def __init__(self, net: nn.Module, head: Head):
        super().__init__()
        self.net, self.head = net, head

    def forward(self, image: Tensor) -> Tensor:
        image = image / 255
        if inputs_of(self.net) != "standardised":
            return probability(self.net(PREPARATIONS[inputs_of(self.net)](image)), self.head)
        centred = image - _mean(image)
        standardised = centred / (_mean(centred * centred).sqrt() + QUIET)
        return probability(self.net(standardised), self.head)


def _mean(images: Tensor) -> Tensor:
    return images.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)


def _kept(net: NestedUNet, head: Head) -> NestedUNet:
    """The part of the net that the head needs."""
    if not isinstance(net, NestedUNet):
        raise UserError(f"a {type(net).__name__} cannot be exported: give a U-Net or UNet++, or one of their kind")
    probability([torch.zeros(1)] * len(net.heads), head)  # refuses a head that is not there
    whole = head in ("mean", -1) or not net.config["deep_supervision"]
    return net if whole else net.prune(head)


def _onnx(net: NestedUNet, head: Head, facts: dict[str, Any]) -> bytes:
    """The file's content. Its norms are folded into the convolutions, which saves bytes."""
    kept = folded(_kept(net, head))
    step = 2**kept.depth
    remarks = logging.getLogger("torch.onnx._internal.exporter._registration")
    remarks.addFilter(_is_another)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            model = torch.onnx.export(
                _Program(kept, "mean" if head == "mean" else -1).eval(),
                (torch.zeros(2, kept.config["in_channels"], 2 * step, 3 * step),),
                dynamo=True,
                verbose=False,
                opset_version=23,  # the newest that torch 2.13 says it exports
                input_names=["image"],
                output_names=["probability"],
                dynamic_shapes=({0: Dim("N"), 2: step * Dim("rows"), 3: step * Dim("columns")},),
            ).model_proto
    finally:
        remarks.removeFilter(_is_another)
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")  # stack traces, with the paths of this machine
    for key, value in {"head": head, **kept.config, **facts, "inputs": kept.inputs}.items():
        name = Path(value).absolute().name if key == "data" and value else str(value)
        model.metadata_props.add(key=key, value=name)
    return model.SerializeToString()


def _is_another(record: logging.LogRecord) -> bool:
    return "torchvision is not installed" not in record.getMessage()


def _difference(content: bytes, net: NestedUNet, head: Head) -> float:
    """The most that a probability of the ONNX file is off PyTorch's, on noise of several sizes and brightnesses."""
    from onnxruntime import InferenceSession

    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    generator, differences = torch.Generator().manual_seed(0), []
    for count, rows, columns in ((1, 3, 1), (3, 2, 5)):
        shape = (count, net.config["in_channels"], rows * 2**net.depth, columns * 2**net.depth)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        images //= torch.arange(1, count + 1, dtype=torch.uint8)[:, None, None, None]  # each darker than the one before
        from_file = session.run(["probability"], {"image": images.float().numpy()})[0]
        from_torch = probabilities(net, images, head=head, setting=Setting("cpu"))
        differences.append((torch.from_numpy(from_file) - from_torch).abs().max())
    return torch.stack(differences).max().item()
