"""Lesson 06: the skips of the four wirings, and UNet++ itself."""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from course_lib.checks.machinery import as_check
from course_lib.checks.nets import (
    as_list,
    assert_every_channel_is_used,
    assert_gradients_are_true,
    assert_no_plain_lists,
    sizes_of_feature_maps,
)
from course_lib.grid import SKIPS, NestedUNet


@as_check
def check_skips(fn: Callable[[str, int], Sequence[int]]) -> None:
    """`fn(wiring, j) -> columns k` of its own row that node x^{i,j} reads, j > 0, from left to right."""
    found = {}
    for wiring, j in product(SKIPS, (1, 2, 3, 4, 5)):
        answer = fn(wiring, j)
        assert answer is not None, f"nothing comes back for {wiring!r}: return a list of columns"
        assert not isinstance(answer, int), f"{wiring!r}, j = {j}: a list is wanted, not the number {answer}"
        found[wiring, j] = list(answer)
        assert all(isinstance(k, int) for k in found[wiring, j]), (
            f"{wiring!r}, j = {j}: columns are whole numbers, these are {found[wiring, j]}"
        )
    for (wiring, j), columns in found.items():
        assert j not in columns, f"{wiring!r}: x^{{i,{j}}} would read itself: only columns left of j are there yet"
        assert not any(k > j for k in columns), f"{wiring!r}: x^{{i,{j}}} would read a column that is made later"
        assert not any(k < 0 for k in columns), f"{wiring!r}: column {min(columns)} does not exist, the first is 0"
    for wiring in SKIPS:
        assert found[wiring, 1] == [0], f"{wiring!r}: left of column 1 there is only column 0, not {found[wiring, 1]}"
    assert found["unet+", 4] != [0], "UNet+ has short skips: the neighbour on the left, not the encoder"
    assert found["unet-e", 4] != [3], "the decoders of U-Net^e read the encoder, column 0: it has no short skips"
    assert found["unet++", 4] != [3], "UNet++ keeps the long skips beside the short ones: all columns on the left"
    assert found["unet++", 4] != [1, 2, 3], "UNet++ reads the encoder too: column 0 is missing"
    assert found["unet++", 4] != [0, 3], "UNet++ is dense: every column on the left, not the first and the last alone"
    assert found["unet++", 4] != [3, 2, 1, 0], (
        "the order counts where channels are concatenated: from left to right, column 0 first"
    )
    for (wiring, j), columns in found.items():
        want = list(SKIPS[wiring](j))
        assert columns == want, f"{wiring!r}: x^{{i,{j}}} reads the columns {want} of its row, {columns} came out"


@as_check
def check_nested_unet(cls: Callable[[int, int, tuple[int, ...]], nn.Module]) -> None:
    """`cls(in_channels, classes, widths)`: UNet++ with a head on each x^{0,j}; returns their logits, j = 1 first."""
    widths, image = (4, 7, 11), torch.randn(2, 3, 16, 24)
    net = cls(3, 2, widths)
    assert_no_plain_lists(net)
    try:
        sizes, outputs = sizes_of_feature_maps(net, image)
    except KeyError as problem:
        raise AssertionError(
            f"{problem} is read before it is there, or is never made: go column after column, each from its top down"
        ) from None
    assert isinstance(outputs, list | tuple), (
        f"a list with the logits of every head is wanted, this is {type(outputs).__name__}"
    )
    assert len(outputs) == 2, (
        f"three widths make depth 2 and so 2 heads, on x^{{0,1}} and x^{{0,2}}: not {len(outputs)}"
    )
    for level, logits in enumerate(outputs, start=1):
        assert isinstance(logits, Tensor) and logits.shape == (2, 2, 16, 24), (
            f"head {level} gives {tuple(logits.shape)}: row 0 is at full size, an image of 16x24 gives (2, 2, 16, 24)"
        )
    smallest = min(sizes)
    assert smallest == (4, 6), f"the smallest feature map of 16x24 is {smallest[0]}x{smallest[1]}: depth 2 makes it 4x6"
    for more in ((4, 7, 11, 13), (4, 7)):
        try:
            deeper = as_list(cls(3, 2, more)(image))
        except Exception as problem:
            raise AssertionError(
                f"with {len(more)} widths it stops ({problem}): loop over the grid, do not write its nodes out"
            ) from None
        assert len(deeper) == len(more) - 1, (
            f"{len(more)} widths make {len(more) - 1} heads, not {len(deeper)}: loop over the grid"
        )
    reference = NestedUNet(3, 2, widths, wiring="unet++", deep_supervision=True)
    heads = [module for module in net.modules() if _is_head(module)]
    assert len(heads) >= 2, "one head serves every column: each x^{0,j} gets a 1x1 convolution of its own"
    _assert_nodes(net, reference, image)
    assert_every_channel_is_used(net, image)
    assert_gradients_are_true(net, image)
    _assert_same_logits(net, reference, image)


def _is_head(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)


def _convolutions(net: nn.Module) -> list[nn.Conv2d]:
    return [module for module in net.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]


def _assert_nodes(net: nn.Module, reference: NestedUNet, image: Tensor) -> None:
    """Each node's first convolution tells by its channels which node it is: widths are uneven for that."""
    want = {(i, j): tuple(reference.node(i, j).conv1.weight.shape[:2]) for i, j in reference.nodes}
    shapes = [tuple(conv.weight.shape[:2]) for conv in _convolutions(net)]
    for (i, j), (c_out, c_in) in want.items():
        if j == 0:
            hint = "an encoder node reads the one above it"
        else:
            hint = f"{j} of its own row, {c_out} channels each, and the {c_in - j * c_out} of the up-sampled node"
        assert (c_out, c_in) in shapes, f"no node x^{{{i},{j}}}: its {c_in} input channels are {hint}"
    assert len(shapes) == 2 * len(want), (
        f"{len(shapes)} convolutions of 3x3 where {len(want)} nodes have two each: are there nodes without a use?"
    )


def _assert_same_logits(net: nn.Module, reference: NestedUNet, image: Tensor) -> None:
    """The same numbers in the same places must give the same logits, whatever the blocks are called."""
    calls: list[tuple[nn.Module, Tensor]] = []
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [
        module.register_forward_hook(lambda module, _inputs, output: calls.append((module, output)))
        for module in net.modules()
        if isinstance(module, kinds)
    ]
    outputs = net.train()(image)
    for hook in hooks:
        hook.remove()
    places = {tuple(reference.node(i, j).conv1.weight.shape[:2]): (i, j) for i, j in reference.nodes}
    heads, block = 0, []
    for module, output in calls:
        if _is_head(module):
            heads += 1
            level = next((n for n, logits in enumerate(outputs, start=1) if logits is output), heads)
            assert level <= reference.depth, "there are more heads than columns: one for each x^{0,j}, j > 0"
            _copy(module, reference.get_submodule(f"final{level}"))
            continue
        if isinstance(module, nn.Conv2d) and tuple(module.weight.shape[:2]) in places:
            block = []
        block.append(module)
        if len(block) == 4:
            node = reference.node(*places[tuple(block[0].weight.shape[:2])])
            for mine, its in zip(block, (node.conv1, node.bn1, node.conv2, node.bn2), strict=True):
                assert type(mine) is type(its), "a node is (convolution, batch norm, ReLU) twice: use VGGBlock"
                _copy(mine, its)
    with torch.no_grad():
        theirs = reference.train()(image)
    pairs = list(zip(outputs, theirs, strict=True))
    assert not all(torch.allclose(a, b.sigmoid(), atol=1e-4) for a, b in pairs), (
        "these are probabilities: return logits, the loss takes the sigmoid by itself"
    )
    assert not all(torch.allclose(a, b.relu(), atol=1e-4) for a, b in pairs), "there is a ReLU behind the heads"
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs), (
        "the shapes are right, the values are not: head j reads x^{0,j}, the shallowest comes first, pooling is max "
        "pooling, up-sampling is bilinear with align_corners=True, and the order is [x^{i,0} ... x^{i,j-1}, up-sampled]"
    )


def _copy(source: nn.Module, target: nn.Module) -> None:
    for ours, theirs in zip(source.parameters(), target.parameters(), strict=True):
        assert ours.shape == theirs.shape, (
            f"a layer has weights {tuple(ours.shape)} where {tuple(theirs.shape)} are due: are heads in their places?"
        )
        theirs.data.copy_(ours.data)
