"""The ONNX file computes what PyTorch computes, at any size, or is not written; the card says only what was given."""

import copy
import logging
import re
import sys
import warnings
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.measure import macs, parameters
from course_lib.predict import export, maps, probabilities, standardise
from course_lib.predict.export import export_onnx, model_card
from course_lib.predict.setting import Setting
from course_lib.relatives import AttentionUNetPlusPlus, RefineNet
from tests.weights import same_weights

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, PACKAGES)),
    reason="ONNX export needs onnx, onnxscript and onnxruntime: pip install -e '.[export]'",
)
FACTS = {"data": "/home/someone/private/cells", "size": 48, "seed": 7}


def make(**options):
    """A net in training mode whose probabilities go from near 0 to near 1, so that no error hides."""
    torch.manual_seed(0)
    net = NestedUNet(**{"classes": 2, "widths": (4, 6, 10, 12), "deep_supervision": True} | options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.2, 3)
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        for name, logits in zip(net.heads, copy.deepcopy(net).eval()(images), strict=True):
            head, scale = net.get_submodule(name), 2 / logits.std((0, 2, 3))
            head.weight *= scale[:, None, None, None]
            head.bias.copy_((head.bias - logits.mean((0, 2, 3))) * scale)
    return net


@pytest.fixture(scope="module")
def net():
    return make()


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    """Head -> its file, each alone in a folder."""
    return {
        head: export_onnx(net, tmp_path_factory.mktemp("onnx") / "new" / "net.onnx", head=head, facts=FACTS)
        for head in ("mean", 2)
    }


def computed(path, images):
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["probability"], {"image": images.float().numpy()})[0])


def pixels(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def assert_as_pytorch(path, net, images, head, atol=1e-5):
    expected = probabilities(net, images, head=head, setting=Setting("cpu"))
    torch.testing.assert_close(computed(path, images), expected, rtol=0, atol=atol)


@needs_onnx
@pytest.mark.parametrize("head", ["mean", 2])
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 3, 48, 16), (2, 3, 24, 40), (3, 3, 96, 96)])
def test_the_probabilities_are_those_of_pytorch_at_any_size(net, exported, head, shape):
    images = pixels(*shape) // torch.arange(1, shape[0] + 1, dtype=torch.uint8)[:, None, None, None]
    assert_as_pytorch(exported[head], net, images, head)
    assert computed(exported[head], images).std() > 0.05  # no map of one value, which would hide an error


@needs_onnx
def test_a_large_dark_image_an_even_one_and_the_sizes_of_a_fast_head(net, exported):
    assert_as_pytorch(exported[2], net, pixels(1, 3, 768, 1024) // 40 + 3, 2)
    assert_as_pytorch(exported["mean"], net, torch.full((1, 3, 16, 24), 77, dtype=torch.uint8), "mean", atol=1e-4)
    assert_as_pytorch(exported[2], net.prune(2), pixels(2, 3, 12, 20), 2)  # no multiples of 8


@needs_onnx
@pytest.mark.parametrize(("head", "step", "widths"), [("mean", 8, "(4, 6, 10, 12)"), (2, 4, "(4, 6, 10)")])
def test_the_file_says_what_it_takes_and_gives(exported, head, step, widths):
    import onnx

    model = onnx.load(exported[head])
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    sides = [f"{step}*rows", f"{step}*columns"]
    assert shapes == {"image": ["N", 3, *sides], "probability": ["N", 2, *sides]}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 23)]
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["head"] == str(head) and told["widths"] == widths
    assert (told["data"], told["size"], told["seed"]) == ("cells", "48", "7")


@needs_onnx
@pytest.mark.parametrize("head", ["mean", 2])
def test_it_is_one_file_without_norms_and_without_paths_of_this_machine(net, exported, head):
    path = exported[head]
    assert list(path.parent.iterdir()) == [path]
    content = path.read_bytes()
    for word in (b"BatchNormalization", b"course_lib", b"site-packages", b"private", b"forward"):
        assert word not in content
    weights = 4 * parameters(export.folded(net if head == "mean" else net.prune(2)))
    assert weights < len(content) < weights + 25_000


@needs_onnx
def test_export_is_silent_repeatable_and_leaves_the_net_and_random_state_alone(
    net, exported, tmp_path, monkeypatch, capfd, caplog
):
    monkeypatch.setattr(logging.getLogger("torch"), "handlers", [caplog.handler])  # its own wrote where nobody looks
    before, state = copy.deepcopy(net), torch.get_rng_state()
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        path = export_onnx(net, str(tmp_path / "again.onnx"), head=2, facts=FACTS)
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert (capfd.readouterr(), remarks, logged) == (("", ""), [], [])
    assert path.read_bytes() == exported[2].read_bytes()
    assert net.training and same_weights(net, before) and torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def ready(exported, monkeypatch):
    """A file that is right, in place of the exporter, which takes seconds."""
    monkeypatch.setattr(export, "_onnx", lambda net, head, facts: exported["mean"].read_bytes())


WRONG = {
    "standardisation": ("as_input", lambda images, inputs: images.float() / 255),
    "pixels": ("as_input", lambda images, inputs: standardise(images.float())),
    "brightness": (
        "as_input",
        lambda images, inputs: (images - 1.0 * images.float().mean()) / (images.float().std() + 5),
    ),
    "mean of heads": ("probability", lambda outputs, head: torch.stack(outputs).mean(0).sigmoid()),
    "not a number": ("probability", lambda outputs, head: outputs[0] * float("nan")),
}


@needs_onnx
@pytest.mark.parametrize("wrong", [*WRONG, "file", "corners"])
def test_a_file_that_differs_is_refused_and_the_old_one_stays(net, ready, exported, tmp_path, monkeypatch, wrong):
    if wrong == "file":
        monkeypatch.setattr(export, "_onnx", lambda net, head, facts: exported[2].read_bytes())
    elif wrong == "corners":
        net = copy.deepcopy(net)
        net.U = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    else:
        monkeypatch.setattr(maps, *WRONG[wrong])
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match=r"net\.onnx is not written because its probabilities are up to .* off PyTorch"):
        export_onnx(net, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@needs_onnx
def test_the_comparison_covers_several_sizes_batch_sizes_and_brightnesses(net, ready, tmp_path, monkeypatch):
    seen = []

    def spy(net, images, **options):
        seen.append(images)
        return probabilities(net, images, **options)

    monkeypatch.setattr(export, "probabilities", spy)
    export_onnx(net, tmp_path / "net.onnx")
    for axis in (0, 2, 3):
        assert len({images.shape[axis] for images in seen}) >= 2
    means = seen[-1].float().mean((1, 2, 3))
    assert means.max() > 2 * means.min()


@needs_onnx
@pytest.mark.parametrize("head", [0, 4, -2, "last"])
def test_a_head_that_is_not_there_is_refused(net, tmp_path, head):
    with pytest.raises(UserError, match=rf"head '?{head}'? does not exist: choose 'mean' or a number from 1 to 3"):
        export_onnx(net, tmp_path / "net.onnx", head=head)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_is_named_with_what_to_type(net, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"^ONNX export needs onnx, .* and onnxruntime: pip install -e '\.\[export\]'$"):
        export_onnx(net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("head", "depth"), [("mean", 3), (3, 3), (-1, 3), (2, 2), (1, 1)])
def test_only_what_the_head_needs_is_kept(net, head, depth):
    assert f"| widths | {', '.join(map(str, (4, 6, 10, 12)[: depth + 1]))} |" in model_card(net, {}, {}, head=head)
    plain = make(wiring="unet", deep_supervision=False)  # one head: kept whole
    if head in ("mean", 1, -1):
        assert "| widths | 4, 6, 10, 12 |" in model_card(plain, {}, {}, head=head)


def numbers(text):
    return set(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", re.sub(r"x\^\{.*?\}", "", text)))


ALWAYS = {"0.5", "32", "0", "255"}  # threshold, float32, pixel values


def test_every_number_of_a_card_was_given(net):
    metrics = {"val": {"iou_pooled": 0.81236, "dice_pooled": 0.9}, "seconds": 123.4, "machine": {"torch": "9.9"}}
    card = model_card(net, FACTS, metrics)
    costs = {f"{parameters(net):,}", f"{macs(net, (48, 48)):,}"}
    split, shape = {"60", "20"}, {"4", "6", "10", "12", "2", "3", "8"}
    assert numbers(card) == ALWAYS | costs | split | shape | {"48", "7", "0.8124", "0.9000"}
    assert "| iou_pooled | 0.8124 | not measured yet |" in card and "the mean of 3 heads" in card


def test_a_card_without_facts_states_none(net):
    card = model_card(net, {}, {})
    assert numbers(card) == ALWAYS | {f"{parameters(net):,}", "4", "6", "10", "12", "2", "3", "8"}
    assert card.count("| not recorded |") == 5 and "Not measured yet." in card
    for text in ("a size that was not recorded", "Data: not recorded.", "Weights: not stated; ask whoever trained"):
        assert text in card


def test_scores_of_both_parts_stand_side_by_side(net):
    metrics = {"val": {"iou_pooled": 0.0}, "test": {"iou_pooled": 0.7, "dice_pooled": 0.8, "nuclei_true": 1203}}
    card = model_card(net, FACTS | {"seed": 0}, metrics)
    assert "| iou_pooled | 0.0000 | 0.7000 |" in card and "| seed | 0 |" in card
    assert "| dice_pooled | not measured yet | 0.8000 |" in card and "| not measured yet | 1,203 |" in card


def test_the_work_on_a_grey_image_is_that_of_one_channel():
    net = NestedUNet(in_channels=1, widths=(4, 6))
    card = model_card(net, FACTS, {})
    assert f"| {macs(net, (48, 48), in_channels=1):,} for an image of 48x48 |" in card and "(N, 1, H, W), pixel" in card


def test_the_card_of_a_fast_head_describes_the_pruned_net_and_lends_it_no_scores(net):
    card, pruned = model_card(net, FACTS, {"val": {"iou_pooled": 0.8}}, head=2), net.prune(2)
    assert f"| parameters | {parameters(pruned):,} |" in card and f"| {macs(pruned, (48, 48)):,} for" in card
    assert "H and W multiples of 4." in card and "of the head on node x^{0,2}" in card
    assert "The file holds one head; its scores: not measured yet." in card
    assert "The file holds one head" not in model_card(net, FACTS, {})
    assert "The file holds one head" not in model_card(make(deep_supervision=False), FACTS, {}, head=1)


@pytest.mark.parametrize(
    ("data", "name", "made", "licence"),
    [
        ("synthetic", "synthetic", "drawn by a program at", "drawn by the course"),
        ("bbbc038", "bbbc038", "resized to", "CC0; cite image set BBBC038"),
        ("dsb2018-fluo", "dsb2018-fluo", "resized to", "CC0, as its original images"),
        ("/home/someone/private/cells", "cells", "resized to", "the data's owner decides"),
        ("/home/someone/private/bbbc038", "bbbc038", "resized to", "the data's owner decides"),  # a folder of that name
    ],
)
def test_the_licence_follows_from_the_data_and_no_path_is_told(net, data, name, made, licence):
    card = model_card(net, {"data": data, "size": 48}, {})
    assert f"| data | {name} |" in card and f"- Data: {licence}" in card and "private" not in card
    assert f"Trained on images {made} 48x48." in card


def test_what_has_no_card_is_refused_and_a_relative_of_the_grid_has_one(net):
    with pytest.raises(UserError, match="head 4 does not exist"):
        model_card(net, FACTS, {}, head=4)
    with pytest.raises(UserError, match="a RefineNet cannot be exported: give a U-Net or"):
        model_card(RefineNet(widths=(4, 6, 10)), {}, {})
    card = model_card(AttentionUNetPlusPlus(widths=(4, 6)), {"size": 32, "tiles": True}, {})
    assert "AttentionUNetPlusPlus" in card and "cut at their own resolution into tiles of 32x32." in card
