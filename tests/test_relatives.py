"""The relatives: their formulas against nets written out by hand, and the one interface that they all share."""

from math import exp

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib.data import Split, Splits
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.measure import parameters
from course_lib.predict import predict, probabilities
from course_lib.predict.setting import Setting
from course_lib.relatives import (
    RELATIVES,
    AttentionUNetPlusPlus,
    DenseBlock,
    DenseUNetPlusPlus,
    Gate,
    OriginalUNet,
    RefineNet,
    UNet3Plus,
    border_weights,
)
from course_lib.train import Recipe, fit
from tests.unrolled import live, picture

WIDTHS = (4, 6, 10)
NESTED = [AttentionUNetPlusPlus, DenseUNetPlusPlus]
EVERY = [
    *((cls, {}) for cls in RELATIVES.values()),
    *((cls, {"deep_supervision": True}) for cls in [*NESTED, UNet3Plus]),
    (UNet3Plus, {"deep_supervision": True, "classification": True, "cat_width": 5}),
]


def make(cls, seed=0, **options):
    torch.manual_seed(seed)
    return cls(**({"in_channels": 3, "classes": 1, "widths": WIDTHS} | options))


def conv(x, weights, name, padding=1):
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)


def norm(x, weights, name):
    statistics = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *statistics)


def up(x, times=2):
    return F.interpolate(x, scale_factor=times, mode="bilinear", align_corners=True)


def encoder(image, weights, rows):
    """The first column written out: x^{0,0}, x^{1,0} ..."""
    x = []
    for i in range(rows):
        y = F.max_pool2d(x[-1], 2) if x else image
        for n in (1, 2):
            y = F.relu(norm(conv(y, weights, f"encoder.H.{i}.conv{n}"), weights, f"encoder.H.{i}.bn{n}"))
        x.append(y)
    return x


@pytest.mark.parametrize(
    ("cls", "options", "expected"),
    [
        (AttentionUNetPlusPlus, {"deep_supervision": True}, 9_163_428 + 229_020),
        (AttentionUNetPlusPlus, {}, 9_163_329 + 229_020),
        (UNet3Plus, {}, 26_971_777),
        (UNet3Plus, {"cat_width": 64, "deep_supervision": True}, 26_989_637),
        (UNet3Plus, {"deep_supervision": True, "classification": True}, 26_991_687),
        (UNet3Plus, {"widths": (32, 64, 128, 256, 512)}, 6_748_993),
        (OriginalUNet, {}, 31_030_658),
        (RefineNet, {"widths": WIDTHS}, 19_665),
        (DenseBlock, {"c_in": 3, "c_out": 8}, 2 * 3 + (9 * 3 + 1) * 4 + 2 * 7 + (9 * 7 + 1) * 4 + (11 + 1) * 8),
    ],
)
def test_parameters_at_the_default_widths(cls, options, expected):
    with torch.device("meta"):
        assert parameters(cls(**options)) == expected


def test_a_gate_by_hand():
    gate = Gate(2, 1).eval()
    weights = {"W_g": [[2.0]], "W_f": [[1.0, -3.0]], "W_psi": [[0.5]]}
    with torch.no_grad():
        for name, values in weights.items():
            layer, normalise = getattr(gate, name)
            layer.weight.copy_(torch.tensor(values)[:, :, None, None])
            layer.bias.fill_(0.25)
            normalise.eps = 0.0
    f, g = torch.tensor([4.0, 1.0]).reshape(1, 2, 1, 1), torch.full((1, 1, 1, 1), 3.0)
    alpha = 1 / (1 + exp(-(0.5 * ((2 * 3 + 0.25) + (4 - 3 + 0.25)) + 0.25)))
    assert gate(f, g).flatten().tolist() == pytest.approx([4 * alpha, alpha])
    assert gate.alpha(f, -3 * g).item() == pytest.approx(1 / (1 + exp(-0.25)))  # the ReLU: 1.25 - 17.75 counts as 0
    assert Gate(1, 1).W_psi[0].in_channels == 1


def test_every_gate_sees_its_skip_and_what_comes_from_below():
    net, x, seen = live(make(AttentionUNetPlusPlus, widths=(4, 6, 10, 12))), {}, {}
    for i, j in net.nodes:
        net.node(i, j).register_forward_hook(lambda _, __, output, node=(i, j): x.update({node: output}))
        for k in range(j):
            net.gate(i, k, j).register_forward_hook(lambda _, inputs, __, edge=(i, k, j): seen.update({edge: inputs}))
    net(picture())
    assert len(seen) == 10
    for (i, k, j), (f, g) in seen.items():
        assert torch.equal(f, x[i, k])
        assert torch.equal(g, up(x[i + 1, j - 1]))


@pytest.mark.parametrize("open_", [True, False])
def test_open_gates_are_unetpp_and_closed_ones_skips_of_zeros(open_):
    net = live(make(AttentionUNetPlusPlus, deep_supervision=True))
    plain = make(NestedUNet, seed=1, deep_supervision=True).eval()
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if "gate" not in name})
    for i, j in ((0, 1), (1, 1), (0, 2)):
        for k in range(j):
            torch.nn.init.constant_(net.gate(i, k, j).W_psi[1].bias, 1e4 if open_ else -1e4)
        if not open_:
            torch.nn.init.zeros_(plain.node(i, j).conv1.weight[:, : j * WIDTHS[i]])
    for logits, expected in zip(net(picture()), plain(picture()), strict=True):
        torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_unet3plus_of_any_depth(depth):
    net = make(UNet3Plus, widths=(4, 6, 10, 3, 7)[: depth + 1], deep_supervision=True, classes=2)
    assert [logits.shape for logits in net(picture(size=(16, 32)))] == [(2, 2, 16, 32)] * (depth + 1)


def test_unet3plus_is_the_net_written_out():
    net = live(make(UNet3Plus, widths=(4, 6, 10, 12), cat_width=5, deep_supervision=True))
    weights = net.state_dict()

    def unit(x, name):
        return F.relu(norm(conv(x, weights, f"{name}.0"), weights, f"{name}.1"))

    def node(row, *scales):
        return unit(torch.cat([unit(x, f"C.{row}.{k}") for k, x in enumerate(scales)], dim=1), f"H.{row}")

    e0, e1, e2, d3 = encoder(picture(), weights, 4)
    d2 = node(2, F.max_pool2d(e0, 4), F.max_pool2d(e1, 2), e2, up(d3))
    d1 = node(1, F.max_pool2d(e0, 2), e1, up(d2), up(d3, 4))
    d0 = node(0, e0, up(d1), up(d2, 4), up(d3, 8))
    deep = [up(conv(x, weights, f"heads.{i}"), 2**i) for i, x in ((3, d3), (2, d2), (1, d1))]
    expected = [*deep, conv(d0, weights, "heads.0")]
    for one, other in zip(net(picture()), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert one.std() > 0.01
    plain = make(UNet3Plus, widths=(4, 6, 10, 12), cat_width=5).eval()  # its head is the last of all
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    assert [logits.tolist() for logits in plain(picture())] == [net(picture())[-1].tolist()]


def guided():
    return live(make(UNet3Plus, deep_supervision=True, classification=True))


class Verdicts(torch.nn.Module):
    """The second image alone is empty."""

    def forward(self, x):
        return torch.tensor([[0.0, 1.0], [0.2, 0.1], [-2.0, -1.0]])


def test_an_image_judged_empty_gets_an_empty_map_and_the_others_their_own():
    net, plain = guided(), make(UNet3Plus, seed=1, deep_supervision=True).eval()
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if "classifier" not in name})
    net.classifier, images = Verdicts(), picture(batch=3)
    for logits, own in zip(net(images), plain(images), strict=True):
        assert torch.equal(logits[[0, 2]], own[[0, 2]])
        assert logits[1].sigmoid().max() < 1e-6


def test_an_untrained_verdict_is_not_empty_in_both_modes():
    net = guided()
    for mode in (True, False):
        assert net.train(mode).presence(picture(batch=5)).tolist() == [[0, 1]] * 5  # whatever the image shows


def test_presence_is_dropout_convolution_and_maximum_and_teaches_classifier_and_encoder():
    net = guided()
    torch.nn.init.normal_(net.classifier[1].weight, generator=torch.Generator().manual_seed(0))
    deepest = encoder(picture(), net.state_dict(), 3)[-1]
    expected = conv(deepest, net.state_dict(), "classifier.1", padding=0).amax((2, 3))
    torch.testing.assert_close(net.presence(picture()), expected)
    assert not torch.allclose(net.train().presence(picture()), net.presence(picture()))  # dropout
    F.cross_entropy(net.presence(picture()), torch.tensor([0, 1])).backward()
    assert all(p.grad.any() for p in [net.classifier[1].weight, net.encoder.H[0].conv1.weight])


def test_refinenet_is_the_net_written_out():
    net = live(make(RefineNet))
    weights = net.state_dict()

    def unit(x, name):
        return x + conv(F.relu(conv(F.relu(x), weights, f"{name}.conv1")), weights, f"{name}.conv2")

    def twice(x, name):
        return unit(unit(x, f"{name}.0"), f"{name}.1")

    def refine(x, row):
        out = p = F.relu(x)
        for n in (0, 1):
            p = conv(F.max_pool2d(p, 5, 1, 2), weights, f"refine.{row}.0.convs.{n}")
            out = out + p
        return unit(out, f"refine.{row}.1")

    def fuse(x, y, row):
        return conv(x, weights, f"fuse.{row}.conv_x") + up(conv(y, weights, f"fuse.{row}.conv_y"))

    x0, x1, x2 = encoder(picture(), weights, 3)
    y2 = refine(twice(x2, "adapt_x.2"), 2)
    y1 = refine(fuse(twice(x1, "adapt_x.1"), twice(y2, "adapt_y.1"), 1), 1)
    y0 = refine(fuse(twice(x0, "adapt_x.0"), twice(y1, "adapt_y.0"), 0), 0)
    torch.testing.assert_close(net(picture())[0], conv(y0, weights, "head", padding=0), rtol=1e-4, atol=1e-5)


def test_a_dense_block_is_its_formula():
    torch.manual_seed(0)
    block, x_0 = live(DenseBlock(3, 8)), picture() - 0.5
    weights = block.state_dict()
    x_1 = conv(F.relu(norm(x_0, weights, "bn1")), weights, "conv1")
    x_2 = conv(F.relu(norm(torch.cat([x_0, x_1], 1), weights, "bn2")), weights, "conv2")
    expected = conv(torch.cat([x_0, x_1, x_2], 1), weights, "transition", padding=0)
    torch.testing.assert_close(block(x_0), expected)


def test_every_node_of_the_dense_grid_is_dense():
    net = make(DenseUNetPlusPlus)
    assert {type(net.node(i, j)) for i, j in net.nodes} == {DenseBlock}


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("cls", NESTED)
def test_pruning_keeps_the_logits_bit_for_bit(cls, level):
    net = live(make(cls, widths=(4, 6, 10, 12), deep_supervision=True))
    pruned = net.prune(level)
    assert type(pruned) is cls
    assert pruned.config == {**net.config, "widths": (4, 6, 10, 12)[: level + 1]}
    whole, kept = net(picture()), pruned(picture())
    assert all(torch.equal(one, other) for one, other in zip(kept, whole[:level], strict=True))
    assert kept[-1].std() > 0.01


def test_572_pixels_become_388():
    with torch.device("meta"):
        net = OriginalUNet()
        assert (net.rim, net.valid(torch.empty(1, 1, 572, 572)).shape) == (92, (1, 2, 388, 388))


def test_valid_convolutions_written_out():
    net = make(OriginalUNet)
    weights = net.state_dict()

    def block(x, name):
        for n in (0, 2):
            x = F.relu(conv(x, weights, f"{name}.{n}", padding=0))
        return x

    def doubled(x, row):
        return F.conv_transpose2d(x, weights[f"U.{row}.weight"], weights[f"U.{row}.bias"], stride=2)

    x0 = block(picture(size=(44, 52)), "down.0")  # 40x48
    x1 = block(F.max_pool2d(x0, 2), "down.1")  # 16x20
    x2 = block(F.max_pool2d(x1, 2), "down.2")  # 4x6
    y1 = block(torch.cat([x1[:, :, 4:12, 4:16], doubled(x2, 1)], 1), "up.1")  # 4x8
    y0 = block(torch.cat([x0[:, :, 16:24, 16:32], doubled(y1, 0)], 1), "up.0")  # 4x12
    logits = net.valid(picture(size=(44, 52)))
    assert logits.shape == (2, 1, 4, 12)
    torch.testing.assert_close(logits, conv(y0, weights, "head", padding=0))


@pytest.mark.parametrize("size", [(40, 44), (44, 43), (44, 46), (8, 8)])
def test_sizes_that_unpadded_convolutions_cannot_take_are_refused(size):
    with pytest.raises(UserError, match=rf"{size[0]}x{size[1]} does not fit .* sides of 44, 48, 52 \.\.\. pixels"):
        make(OriginalUNet).valid(picture(size=size))


@pytest.mark.parametrize("size", [(16, 32), (25, 31), (30, 4), (4, 2), (3, 5), (1, 7), (1, 1)])
def test_an_image_of_any_size_is_continued_by_its_mirror_image(size):
    net, image = make(OriginalUNet), picture(size=size)
    extra = [(20, 20 + (4 - side if side < 4 else -side % 4)) for side in size]  # numpy mirrors as often as it takes
    continued = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), *extra], mode="reflect"))
    logits = net(image)[-1]
    assert logits.shape == (2, 1, *size)
    torch.testing.assert_close(logits, net.valid(continued)[:, :, : size[0], : size[1]])
    assert make(OriginalUNet, widths=(4, 6))(image)[-1].shape == (2, 1, *size)


def test_weights_have_the_deviation_of_he():
    net = make(OriginalUNet, widths=(16, 32, 48))
    for name, inputs in {"down.1.2": 9 * 32, "up.0.0": 9 * 32, "U.1": 48}.items():
        weights = net.state_dict()[f"{name}.weight"]
        assert weights.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05)
    assert all(not value.any() for name, value in net.state_dict().items() if name.endswith("bias"))


ROW = torch.tensor([[1, 1, 0, 0, 0, 2, 0, 0, 0, 0]])


def test_border_weights_by_hand():
    sums = [5, 4, 4, 4, 4, 4, 6, 8, 10, 12]  # distance to nucleus 1 plus distance to nucleus 2
    w_c = [10 / 6 if label else 10 / 14 for label in ROW[0]]  # 3 of 10 pixels are nucleus
    expected = [c + 7 * exp(-(d**2) / 8) for c, d in zip(w_c, sums, strict=True)]
    w = border_weights(ROW, w0=7.0, sigma=2.0)
    assert (w.shape, w.dtype) == ((1, 10), torch.float32)
    assert w[0].tolist() == pytest.approx(expected)


def test_only_the_two_nearest_nuclei_count():
    labels = torch.zeros(9, 9, dtype=torch.int32)
    labels[4, 0], labels[4, 4], labels[0, 8], labels[8, 8] = 5, 9, 2, 7
    w = border_weights(labels) - border_weights(labels, w0=0.0)
    assert w[4, 2].item() == pytest.approx(10 * exp(-((2 + 2) ** 2) / 50), rel=1e-5)
    assert w[4, 8].item() == pytest.approx(10 * exp(-((4 + 4) ** 2) / 50), rel=1e-5)
    assert w[1, 6].item() == pytest.approx(10 * exp(-((5**0.5 + 13**0.5) ** 2) / 50), rel=1e-5)


def test_fewer_than_two_nuclei_have_no_border():
    labels = torch.zeros(3, 6, 8, dtype=torch.int32)
    labels[1, 2:4, 3:5] = labels[2] = 6
    assert torch.equal(border_weights(labels), border_weights(labels, w0=0.0))
    assert torch.equal(border_weights(labels)[[0, 2]], torch.ones(2, 6, 8))


def test_border_weights_of_a_batch_are_those_of_its_images():
    batch = torch.stack([ROW, ROW.flip(1), 3 * ROW])
    assert torch.equal(border_weights(batch), torch.stack([border_weights(one) for one in batch]))
    assert torch.equal(border_weights(batch)[0], border_weights(batch)[2])  # numbers are names only


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: make(UNet3Plus).presence(picture()), "no classification module: make it with classification=True"),
        (lambda: guided().presence(picture(size=(17, 24))), "17x24 cannot be halved 2 times"),
        (lambda: make(UNet3Plus, cat_width=0), "cat_width is 0: give a positive number"),
        (lambda: RefineNet(widths=(4, 6)), r"widths \(4, 6\) make no RefineNet: give 3 or more numbers"),
        (lambda: border_weights(torch.zeros(2, 1, 4, 4)), r"have shape \(2, 1, 4, 4\): give \(height, width\)"),
        (lambda: border_weights(ROW, sigma=0), "sigma is 0: give a positive number of pixels"),
    ],
)
def test_what_one_of_them_cannot_take_is_refused(call, why):
    with pytest.raises(UserError, match=why):
        call()


@pytest.mark.parametrize(("cls", "options"), EVERY)
def test_the_config_builds_the_same_net_again(cls, options):
    net = live(make(cls, classes=2, widths=list(WIDTHS), **options))
    again = cls(**net.config)
    again.load_state_dict(net.state_dict(), strict=True)
    assert again.config == net.config
    assert net.config["widths"] == WIDTHS
    outputs, expected = again.eval()(picture()), net(picture())
    heads = {UNet3Plus: 3}.get(cls, 2) if "deep_supervision" in options else 1
    assert isinstance(outputs, list)
    assert [tuple(logits.shape) for logits in outputs] == [(2, 2, 16, 32)] * heads
    assert all(torch.equal(one, other) for one, other in zip(outputs, expected, strict=True))
    assert all(logits.std() > 1e-3 for logits in outputs)


@pytest.mark.parametrize("cls", RELATIVES.values())
def test_images_that_do_not_fit_are_refused(cls):
    net = make(cls)
    assert net.depth == (0 if cls is OriginalUNet else 2)
    with pytest.raises(UserError, match="the image has 1 channels and this net takes 3"):
        net(picture(channels=1))
    with pytest.raises(UserError, match=r"the images have shape \(3, 16, 32\)"):
        net(picture()[0])
    if net.depth:
        with pytest.raises(UserError, match=r"16x26 cannot be halved 2 times: .* multiples of 4"):
            net(picture(size=(16, 26)))


@pytest.mark.parametrize("widths", [(), (4,), (4, 0, 6), (4, -6, 10)])
@pytest.mark.parametrize("cls", RELATIVES.values())
def test_widths_that_make_no_net_are_refused(cls, widths):
    with pytest.raises(UserError, match=r"widths \(.*\) make no .*: give .* or more|numbers of channels"):
        cls(widths=widths)


@pytest.mark.parametrize(("cls", "options"), EVERY)
def test_training_and_prediction_take_every_net(cls, options):
    net, masks = make(cls, **options), torch.zeros(6, 1, 16, 32)
    for n in range(6):  # bright blobs in noise
        masks[n, :, 2 + n : 8 + n, 3 * n : 3 * n + 7] = 1
    pixels = (255 * (0.7 * masks + 0.3 * picture(batch=6, seed=0))).round().to(torch.uint8)
    split = Split(pixels, masks.to(torch.uint8), masks[:, 0].int(), [str(n) for n in range(6)])
    cpu = Setting(device="cpu")
    recipe = Recipe(batch_size=3, augment=False)
    rows = list(fit(net, Splits(split, split, split), epochs=3, recipe=recipe, setting=cpu))
    assert rows[-1]["loss"] < rows[0]["loss"]
    maps = probabilities(net, pixels, head=-1, setting=cpu)
    assert maps.shape == masks.shape
    torch.testing.assert_close(predict(net, pixels[0], head=-1, setting=cpu), maps[0], rtol=1e-3, atol=1e-4)
    assert predict(net, pixels[0, :, :13, :21], tile=8, overlap=4, setting=cpu).shape == (1, 13, 21)
