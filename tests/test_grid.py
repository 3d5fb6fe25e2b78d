"""The grid: its parameters and names, its four wirings against nets written out by hand, and what pruning keeps."""

from functools import partial

import pytest
import torch

from course_lib.errors import UserError
from course_lib.grid import SKIPS, WIDTHS, NestedUNet
from tests.unrolled import UnrolledNested, UnrolledUNet, live, picture

WIRINGS = list(SKIPS)
SUPERVISED = ["unet-e", "unet+", "unet++"]
SMALL = (4, 6, 10, 12, 14)


def make(seed=0, **options):
    torch.manual_seed(seed)
    return NestedUNet(**({"widths": SMALL} | options))


@pytest.mark.parametrize(
    ("depth", "options", "expected"),
    [
        (1, {}, 103_041),
        (2, {}, 519_105),
        (3, {}, 2_236_161),
        (4, {}, 9_163_329),
        (4, {"deep_supervision": True}, 9_163_428),
        (4, {"wiring": "unet"}, 7_852_545),
        (4, {"wiring": "unet-e"}, 8_849_985),
        (4, {"wiring": "unet+"}, 8_849_985),
    ],
)
def test_parameters_at_the_default_widths(depth, options, expected):
    with torch.device("meta"):
        net = NestedUNet(widths=WIDTHS[: depth + 1], **options)
    assert sum(p.numel() for p in net.parameters()) == expected


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_any_depth(wiring, depth):
    net = make(widths=(3, 5, 4, 6, 2, 7)[: depth + 1], wiring=wiring, in_channels=2, classes=3).eval()
    nodes = 2 * depth + 1 if wiring == "unet" else (depth + 1) * (depth + 2) // 2
    assert (net.depth, len(net.nodes)) == (depth, nodes)
    size = (2**depth, 3 * 2**depth)
    outputs = net(picture(channels=2, size=size))
    assert isinstance(outputs, list)
    assert [tuple(logits.shape) for logits in outputs] == [(2, 3, *size)]


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
    image = picture(size=(16, 32))
    for one, other in zip(net(image), unrolled(image), strict=True):
        assert torch.equal(one, other)
        assert one.std() > 0.01  # not two nets that are equal because both are dead


def test_each_head_of_unet_e_is_a_unet_of_its_own_depth():
    net = live(make(wiring="unet-e", deep_supervision=True)).eval()
    weights = net.state_dict()
    for level, logits in enumerate(net(picture()), start=1):
        alone = NestedUNet(widths=SMALL[: level + 1], wiring="unet").eval()
        own = {name: weights[name.replace("final", f"final{level}")] for name in alone.state_dict()}
        alone.load_state_dict(own, strict=True)
        assert torch.equal(alone(picture())[0], logits)


def readers(net, image):
    """Node -> the nodes that it reads, by gradients."""
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
    read = {}
    for node, output in outputs.items():
        weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(0))
        gradients = torch.autograd.grad((weights * output).sum(), list(leaves.values()), allow_unused=True)
        pairs = zip(leaves, gradients, strict=True)
        read[node] = {other for other, g in pairs if g is not None and g.abs().max() > 1e-6}
    return read


ENCODER = {(0, 0): set(), (1, 0): {(0, 0)}, (2, 0): {(1, 0)}, (3, 0): {(2, 0)}}
FIRST = ENCODER | {(0, 1): {(0, 0), (1, 0)}, (1, 1): {(1, 0), (2, 0)}, (2, 1): {(2, 0), (3, 0)}}
READS = {
    "unet": ENCODER | {(2, 1): {(2, 0), (3, 0)}, (1, 2): {(1, 0), (2, 1)}, (0, 3): {(0, 0), (1, 2)}},
    "unet-e": FIRST | {(0, 2): {(0, 0), (1, 1)}, (1, 2): {(1, 0), (2, 1)}, (0, 3): {(0, 0), (1, 2)}},
    "unet+": FIRST | {(0, 2): {(0, 1), (1, 1)}, (1, 2): {(1, 1), (2, 1)}, (0, 3): {(0, 2), (1, 2)}},
    "unet++": FIRST
    | {(0, 2): {(0, 0), (0, 1), (1, 1)}, (1, 2): {(1, 0), (1, 1), (2, 1)}, (0, 3): {(0, 0), (0, 1), (0, 2), (1, 2)}},
}


@pytest.mark.parametrize("wiring", WIRINGS)
def test_every_node_reads_what_the_formula_says(wiring):
    assert readers(make(widths=(4, 6, 10, 12), wiring=wiring), picture(size=(16, 24))) == READS[wiring]


@pytest.mark.parametrize("wiring", SUPERVISED)
def test_heads_come_shallowest_first(wiring):
    net = make(wiring=wiring, deep_supervision=True).eval()
    for j in range(1, 5):
        torch.nn.init.zeros_(net.get_submodule(f"final{j}").weight)
        torch.nn.init.constant_(net.get_submodule(f"final{j}").bias, j)
    assert [logits.unique().tolist() for logits in net(picture())] == [[1], [2], [3], [4]]


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("wiring", SUPERVISED)
def test_pruning_keeps_the_logits_bit_for_bit(wiring, level):
    net = live(make(wiring=wiring, deep_supervision=True)).eval()
    pruned = net.prune(level)
    assert set(pruned.nodes) == {(i, j) for i, j in net.nodes if i + j <= level}
    assert pruned.heads == {f"final{j}": j for j in range(1, level + 1)}
    assert pruned.depth == level
    whole, kept = net(picture()), pruned(picture())
    assert len(kept) == level
    assert all(torch.equal(one, other) for one, other in zip(kept, whole[:level], strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_pruned_weights_are_copies_that_can_be_trained_and_the_mode_stays(training):
    net = make(deep_supervision=True).train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    pruned = net.prune(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert {module.training for module in pruned.modules()} == {training}
    assert {value.device.type for value in pruned.state_dict().values()} == {"cpu"}
    assert all(p.requires_grad and p.is_leaf for p in pruned.parameters())
    with torch.no_grad():
        for value in pruned.state_dict().values():
            value.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("size", [(24, 32), (32, 24), (17, 17), (8, 16)])
def test_sizes_that_cannot_be_halved_are_refused(size):
    with pytest.raises(UserError, match=rf"{size[0]}x{size[1]} cannot be halved 4 times: .* multiples of 16,"):
        make()(picture(size=size))


@pytest.mark.parametrize(
    ("call", "why"),
    [
        *(
            (partial(make, widths=widths), "no grid: give two or more|numbers of channels are")
            for widths in [(), (4,), (4, 0), (4, -6, 9)]
        ),
        (partial(make, wiring="unet3+"), r"'unet3\+' is unknown: choose one of unet, unet-e, unet\+, unet\+\+"),
        (partial(make, wiring="unet", deep_supervision=True), "no decoder but .* to supervise: choose 'unet-e'"),
        (lambda: make()(picture()[0]), r"the images have shape \(3, 16, 32\): give \(N, channels, height, width\)"),
        (lambda: make()(picture(channels=1)), "the image has 1 channels and this net takes 3"),
        *((partial(make(wiring=wiring).prune, 2), "prune needs deep supervision") for wiring in WIRINGS),
        *((partial(make(deep_supervision=True).prune, n), rf"level {n} does not .* 1 to 4") for n in (-1, 0, 5)),
    ],
)
def test_what_makes_no_sense_is_refused(call, why):
    with pytest.raises(UserError, match=why):
        call()


def test_the_config_builds_the_same_net_again():
    net = make(in_channels=2, classes=3, widths=[4, 6, 10], wiring="unet+", deep_supervision=True)
    options = {"in_channels": 2, "classes": 3, "wiring": "unet+", "deep_supervision": True}
    assert net.config == options | {"widths": (4, 6, 10)}
    again = NestedUNet(**net.config)
    again.load_state_dict(net.state_dict(), strict=True)
    assert again.config == net.config
    image = picture(channels=2)
    assert all(torch.equal(one, other) for one, other in zip(net.eval()(image), again.eval()(image), strict=True))


class PixelBlock(torch.nn.Conv2d):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out, 1)


class Other(NestedUNet):
    """What a relative may change: the block of a node, and how its inputs are joined (here: they are forgotten)."""

    block = PixelBlock

    def join(self, i, j, skips, up):
        self.seen[i, j] = [x.shape[1] for x in [*skips, up]]
        return 0 * super().join(i, j, skips, up)


def test_a_subclass_names_its_block_and_joins_the_inputs_of_a_node():
    net = Other(widths=(4, 6, 10), wiring="unet++")
    net.seen = {}
    assert {type(net.node(i, j)) for i, j in net.nodes} == {PixelBlock}
    assert net(picture())[0].unique().numel() == 1
    assert net.seen == {(0, 1): [4, 6], (1, 1): [6, 10], (0, 2): [4, 4, 6]}
