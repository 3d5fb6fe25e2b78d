"""The grid: its parameters and names, its four wirings against nets written out by hand, and what pruning keeps."""

import pytest
import torch
import torch.nn.functional as F

from course_lib.errors import UserError
from course_lib.grid import SKIPS, NestedUNet, VGGBlock
from course_lib.losses import bce_dice, deep_supervision
from tests.unrolled import UnrolledNested, UnrolledUNet

WIRINGS = ["unet", "unet-e", "unet+", "unet++"]
SUPERVISED = ["unet-e", "unet+", "unet++"]
WIDTHS = (4, 6, 10, 12, 14)


def make(seed=0, **options):
    torch.manual_seed(seed)
    return NestedUNet(**({"widths": WIDTHS} | options))


def live(net, seed=1):
    """Batch norm with statistics, scales and shifts of its own, as after training: no map fades out."""
    torch.manual_seed(seed)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.2)
        for _ in range(30):
            net(picture())
        for norm in norms:
            norm.running_mean.add_(0.1 * torch.randn(norm.num_features))
    return net


def picture(*, batch=2, channels=3, size=(16, 32), seed=2):
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(seed))


# Values known from the papers and by hand


@pytest.mark.parametrize(
    ("wiring", "deep", "expected"),
    [
        ("unet", False, 7_852_545),
        ("unet-e", False, 8_849_985),
        ("unet+", False, 8_849_985),
        ("unet++", False, 9_163_329),
        ("unet++", True, 9_163_428),
    ],
)
def test_parameters_at_the_default_widths(wiring, deep, expected):
    with torch.device("meta"):
        net = NestedUNet(wiring=wiring, deep_supervision=deep)
    assert sum(p.numel() for p in net.parameters()) == expected


@pytest.mark.parametrize(("depth", "expected"), [(1, 103_041), (2, 519_105), (3, 2_236_161), (4, 9_163_329)])
def test_parameters_of_every_depth(depth, expected):
    with torch.device("meta"):
        net = NestedUNet(widths=(32, 64, 128, 256, 512)[: depth + 1])
    assert sum(p.numel() for p in net.parameters()) == expected


def test_nodes_and_skips_of_depth_2_by_hand():
    whole = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)]
    nets = {wiring: make(widths=(4, 6, 10), wiring=wiring) for wiring in WIRINGS}
    assert nets["unet"].nodes == [(0, 0), (1, 0), (2, 0), (1, 1), (0, 2)]
    assert all(nets[wiring].nodes == whole for wiring in SUPERVISED)
    assert {wiring: net.skips for wiring, net in nets.items()} == {
        "unet": {1: [0], 2: [0]},
        "unet-e": {1: [0], 2: [0]},
        "unet+": {1: [0], 2: [1]},
        "unet++": {1: [0], 2: [0, 1]},
    }
    assert all(net.depth == 2 and net.heads == {"final": 2} for net in nets.values())
    assert make(widths=(4, 6, 10), deep_supervision=True).heads == {"final1": 1, "final2": 2}


def test_the_four_wirings_are_the_keys_of_skips():
    assert list(SKIPS) == WIRINGS


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_any_depth(wiring, depth):
    net = make(widths=(3, 5, 4, 6, 2, 7)[: depth + 1], wiring=wiring, in_channels=2, classes=3).eval()
    nodes = 2 * depth + 1 if wiring == "unet" else (depth + 1) * (depth + 2) // 2
    assert (net.depth, len(net.nodes)) == (depth, nodes)
    size = (2**depth, 3 * 2**depth)
    outputs = net(picture(channels=2, size=size))
    assert [tuple(logits.shape) for logits in outputs] == [(2, 3, *size)]


def test_names_and_order_of_the_weights():
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    parts = {"conv1": ["weight", "bias"], "bn1": norm, "conv2": ["weight", "bias"], "bn2": norm}
    expected = [
        f"{block}.{part}.{weight}"
        for block in ("conv0_0", "conv1_0", "conv0_1")
        for part, weights in parts.items()
        for weight in weights
    ]
    assert list(make(widths=(4, 6)).state_dict()) == [*expected, "final.weight", "final.bias"]
    supervised = list(make(widths=(4, 6), deep_supervision=True).state_dict())
    assert supervised == [*expected, "final1.weight", "final1.bias"]


# Independent references

UNROLLED = [
    ({"wiring": "unet"}, UnrolledUNet),
    ({"wiring": "unet++"}, lambda: UnrolledNested(supervised=False)),
    ({"wiring": "unet++", "deep_supervision": True}, UnrolledNested),
]


@pytest.mark.parametrize(("options", "reference"), UNROLLED)
def test_same_seed_same_weights_as_the_net_written_out(options, reference):
    net = make(seed=3, **options).state_dict()
    torch.manual_seed(3)
    unrolled = reference().state_dict()
    assert list(net) == list(unrolled)
    assert all(torch.equal(net[name], unrolled[name]) for name in net)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("options", "reference"), UNROLLED)
def test_bit_equal_to_the_net_written_out(options, reference, training):
    unrolled = live(reference()).train(training)
    net = make(seed=9, **options).train(training)
    net.load_state_dict(unrolled.state_dict(), strict=True)
    found, expected = net(picture()), unrolled(picture())
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
        assert one.std() > 0.01  # not two nets that are equal because both are dead


@pytest.mark.parametrize("training", [False, True])
def test_the_block_is_conv_norm_relu_twice(training):
    torch.manual_seed(0)
    block = live(VGGBlock(3, 5)).train(training)
    x = picture(size=(6, 8))
    y = x
    for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        y = F.conv2d(y, conv.weight, conv.bias, padding=1)
        if training:
            mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
        else:
            mean, variance = norm.running_mean.clone(), norm.running_var.clone()
        y = (y - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        y = (y * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
    torch.testing.assert_close(block(x), y, rtol=1e-5, atol=1e-5)


def test_each_head_of_unet_e_is_a_unet_of_its_own_depth():
    net = live(make(wiring="unet-e", deep_supervision=True)).eval()
    weights = net.state_dict()
    for level, logits in enumerate(net(picture()), start=1):
        alone = NestedUNet(widths=WIDTHS[: level + 1], wiring="unet").eval()
        own = {name: weights[name.replace("final", f"final{level}")] for name in alone.state_dict()}
        alone.load_state_dict(own, strict=True)
        assert torch.equal(alone(picture())[0], logits)


def test_unet_plus_is_its_recursion():
    net = live(make(wiring="unet+", deep_supervision=True)).eval()

    def x(i, j):
        block = getattr(net, f"conv{i}_{j}")
        if j > 0:
            up = F.interpolate(x(i + 1, j - 1), scale_factor=2, mode="bilinear", align_corners=True)
            return block(torch.cat([x(i, j - 1), up], dim=1))
        return block(F.max_pool2d(x(i - 1, 0), 2) if i > 0 else picture())

    for level, logits in enumerate(net(picture()), start=1):
        assert torch.equal(getattr(net, f"final{level}")(x(0, level)), logits)


# Who reads whom: every node's output is replaced by a fresh leaf, so gradients reach direct readers only


def readers(net, image):
    """Node -> the nodes that it reads, found by gradients."""
    outputs, leaves = {}, {}

    def cut(node):
        def hook(module, inputs, output):
            outputs[node] = output
            leaves[node] = output.detach().requires_grad_()
            return leaves[node]

        return hook

    for node in net.nodes:
        net.node(*node).register_forward_hook(cut(node))
    net(image)
    found = {}
    for node, output in outputs.items():
        weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(0))
        gradients = torch.autograd.grad((weights * output).sum(), list(leaves.values()), allow_unused=True)
        found[node] = {
            other for other, g in zip(leaves, gradients, strict=True) if g is not None and g.abs().max() > 1e-6
        }
    return found


ENCODER = {(0, 0): set(), (1, 0): {(0, 0)}, (2, 0): {(1, 0)}, (3, 0): {(2, 0)}}
READS = {
    "unet": ENCODER | {(2, 1): {(2, 0), (3, 0)}, (1, 2): {(1, 0), (2, 1)}, (0, 3): {(0, 0), (1, 2)}},
    "unet-e": ENCODER
    | {(0, 1): {(0, 0), (1, 0)}, (1, 1): {(1, 0), (2, 0)}, (2, 1): {(2, 0), (3, 0)}}
    | {(0, 2): {(0, 0), (1, 1)}, (1, 2): {(1, 0), (2, 1)}}
    | {(0, 3): {(0, 0), (1, 2)}},
    "unet+": ENCODER
    | {(0, 1): {(0, 0), (1, 0)}, (1, 1): {(1, 0), (2, 0)}, (2, 1): {(2, 0), (3, 0)}}
    | {(0, 2): {(0, 1), (1, 1)}, (1, 2): {(1, 1), (2, 1)}}
    | {(0, 3): {(0, 2), (1, 2)}},
    "unet++": ENCODER
    | {(0, 1): {(0, 0), (1, 0)}, (1, 1): {(1, 0), (2, 0)}, (2, 1): {(2, 0), (3, 0)}}
    | {(0, 2): {(0, 0), (0, 1), (1, 1)}, (1, 2): {(1, 0), (1, 1), (2, 1)}}
    | {(0, 3): {(0, 0), (0, 1), (0, 2), (1, 2)}},
}


@pytest.mark.parametrize("wiring", WIRINGS)
def test_every_node_reads_what_the_formula_says(wiring):
    assert readers(make(widths=(4, 6, 10, 12), wiring=wiring), picture(size=(16, 24))) == READS[wiring]


@pytest.mark.parametrize(
    ("wiring", "unused"), [("unet", set()), ("unet-e", {(0, 1)}), ("unet+", set()), ("unet++", set())]
)
def test_which_nodes_get_no_gradient_from_the_last_head_alone(wiring, unused):
    net = make(widths=(4, 6, 10), wiring=wiring)
    net(picture())[-1].square().sum().backward()
    assert {node for node in net.nodes if net.node(*node).conv1.weight.grad is None} == unused


def test_unet_e_without_supervision_leaves_all_inner_nodes_without_gradient():
    net = make(wiring="unet-e")
    net(picture())[-1].square().sum().backward()
    silent = {node for node in net.nodes if net.node(*node).conv1.weight.grad is None}
    assert silent == {(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1)}


# The list of heads


@pytest.mark.parametrize("wiring", SUPERVISED)
def test_heads_come_shallowest_first(wiring):
    net = make(wiring=wiring, deep_supervision=True).eval()
    for j in range(1, 5):
        torch.nn.init.zeros_(net.get_submodule(f"final{j}").weight)
        torch.nn.init.constant_(net.get_submodule(f"final{j}").bias, j)
    outputs = net(picture())
    assert isinstance(outputs, list)
    assert [logits.unique().tolist() for logits in outputs] == [[1], [2], [3], [4]]


@pytest.mark.parametrize("wiring", WIRINGS)
def test_one_head_is_a_list_too(wiring):
    outputs = make(wiring=wiring)(picture())
    assert isinstance(outputs, list)
    assert len(outputs) == 1


# Pruning


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("wiring", SUPERVISED)
def test_pruning_keeps_the_logits_bit_for_bit(wiring, level):
    net = live(make(wiring=wiring, deep_supervision=True)).eval()
    pruned = net.prune(level)
    assert not pruned.training
    assert set(pruned.nodes) == {(i, j) for i, j in net.nodes if i + j <= level}
    assert pruned.heads == {f"final{j}": j for j in range(1, level + 1)}
    assert pruned.depth == level
    whole, kept = net(picture()), pruned(picture())
    assert len(kept) == level
    assert all(torch.equal(one, other) for one, other in zip(kept, whole[:level], strict=True))


def test_pruning_keeps_what_was_trained():
    net = make(widths=(4, 6, 10), deep_supervision=True)
    for _ in range(3):
        net(picture())  # moves the running statistics
    net.eval()
    assert torch.equal(net.prune(1)(picture())[0], net(picture())[0])


def test_pruning_keeps_the_mode():
    net = make(deep_supervision=True)
    assert all(module.training for module in net.train().prune(2).modules())
    assert not any(module.training for module in net.eval().prune(2).modules())


def test_pruning_leaves_the_random_state_alone():
    net = make(deep_supervision=True)
    state = torch.get_rng_state()
    net.prune(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_pruned_weights_are_copies_that_can_be_trained():
    net = make(deep_supervision=True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    pruned = net.prune(2)
    assert {value.device.type for value in pruned.state_dict().values()} == {"cpu"}
    assert all(p.requires_grad and p.is_leaf for p in pruned.parameters())
    with torch.no_grad():
        for value in pruned.state_dict().values():
            value.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_pruned_net_can_be_pruned_again():
    net = live(make(deep_supervision=True)).eval()
    assert torch.equal(net.prune(3).prune(1)(picture())[-1], net(picture())[0])


@pytest.mark.parametrize("wiring", WIRINGS)
def test_pruning_is_refused_without_supervision(wiring):
    with pytest.raises(UserError, match="prune needs deep supervision"):
        make(wiring=wiring).prune(2)


@pytest.mark.parametrize("level", [-1, 0, 5])
def test_levels_that_do_not_exist_are_refused(level):
    with pytest.raises(UserError, match=f"level {level} does not exist: choose 1 to 4"):
        make(deep_supervision=True).prune(level)


# Refusals


@pytest.mark.parametrize("size", [(24, 32), (32, 24), (17, 17), (8, 16)])
def test_sizes_that_cannot_be_halved_are_refused(size):
    with pytest.raises(UserError, match=rf"{size[0]}x{size[1]} cannot be halved 4 times: .* multiples of 16,"):
        make()(picture(size=size))


def test_one_image_without_a_batch_is_refused():
    with pytest.raises(UserError, match=r"the images have shape \(3, 16, 32\): give \(N, channels, height, width\)"):
        make()(picture()[0])


def test_other_channels_are_refused():
    with pytest.raises(UserError, match="the image has 1 channels and this net takes 3"):
        make()(picture(channels=1))


def test_an_unknown_wiring_is_refused():
    with pytest.raises(UserError, match=r"wiring 'unet3\+' is unknown: choose one of unet, unet-e, unet\+, unet\+\+"):
        make(wiring="unet3+")


@pytest.mark.parametrize("widths", [(), (4,), (4, 0), (4, -6, 10)])
def test_widths_that_make_no_grid_are_refused(widths):
    with pytest.raises(UserError, match="make no grid: give two or more positive numbers"):
        make(widths=widths)


def test_supervision_of_the_plain_unet_is_refused():
    with pytest.raises(UserError, match="no decoder but the deepest to supervise: choose 'unet-e'"):
        make(wiring="unet", deep_supervision=True)


# Determinism and learning


def test_the_config_builds_the_same_net_again():
    net = make(in_channels=2, classes=3, widths=[4, 6, 10], wiring="unet+", deep_supervision=True)
    assert net.config == {
        "in_channels": 2,
        "classes": 3,
        "widths": (4, 6, 10),
        "wiring": "unet+",
        "deep_supervision": True,
    }
    again = NestedUNet(**net.config)
    again.load_state_dict(net.state_dict(), strict=True)
    assert again.config == net.config
    image = picture(channels=2)
    assert all(torch.equal(one, other) for one, other in zip(net.eval()(image), again.eval()(image), strict=True))


def test_same_seed_same_net():
    one, other, third = make(seed=5), make(seed=5), make(seed=6)
    assert torch.equal(one(picture())[-1], other(picture())[-1])
    assert not torch.equal(one(picture())[-1], third(picture())[-1])


@pytest.mark.parametrize("wiring", WIRINGS)
def test_it_learns(wiring):
    """Bright blobs in noise: 30 steps more than halve the loss."""
    net = make(widths=(4, 6, 10), wiring=wiring, deep_supervision=wiring != "unet")
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(6, 1, 16, 24)
    for n in range(6):
        masks[n, :, 2 + n : 8 + n, 3 * n : 3 * n + 7] = 1
    images = 0.7 * masks + 0.3 * torch.rand(6, 3, 16, 24, generator=generator)
    optimiser, loss = torch.optim.Adam(net.parameters(), lr=0.02), deep_supervision(bce_dice)
    losses = []
    for _ in range(30):
        losses.append(loss(net(images), masks))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]
