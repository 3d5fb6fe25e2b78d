"""Lesson 08: cutting a net to one level, and choosing the level."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from course_lib.checks.machinery import as_check
from course_lib.grid import NestedUNet
from course_lib.measure import parameters


@as_check
def check_prune(fn: Callable[[NestedUNet, int], nn.Module]) -> None:
    """`fn(net, level) -> net`: the shallower grid with the same weights; its heads give the same logits bit for bit."""
    net = NestedUNet(3, 2, (4, 6, 7, 9), wiring="unet++", deep_supervision=True)
    image = torch.randn(3, 3, 16, 24)
    for _ in range(2):
        net(image)  # batch norm remembers something now
    net.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        whole = net(image)
    for level in (1, 2, 3):
        pruned = fn(net, level)
        assert isinstance(pruned, nn.Module), f"a net is wanted, this is {type(pruned).__name__}"
        kept = net.state_dict()
        assert list(kept) == list(before) and all(torch.equal(kept[name], before[name]) for name in before), (
            "the net that was given is changed itself: build a new one and leave the old one alone"
        )
        if level < 3:
            assert pruned is not net, "the net comes back as it was"
        with torch.no_grad():
            outputs = pruned.eval()(image)
        net.eval()
        assert isinstance(outputs, list | tuple), "the pruned net returns a list of logits, as the whole one does"
        want = parameters(NestedUNet(3, 2, (4, 6, 7, 9)[: level + 1], deep_supervision=True))
        depth = getattr(pruned, "depth", None)
        assert depth is None or depth == level, (
            f"level {level} has depth {level} and so {level + 1} widths; this net has depth {depth}"
        )
        assert parameters(pruned) <= want, (
            f"level {level} still holds {parameters(pruned)} parameters, its nodes with i + j <= {level} and their "
            f"heads have {want}: leave the other nodes out, do not only skip their heads"
        )
        assert len(outputs) == level, f"heads 1 to {level} stay at level {level}: {level} logits, not {len(outputs)}"
        same = [torch.equal(a, b) for a, b in zip(outputs, whole[:level], strict=True)]
        if not all(same):
            _explain(pruned, net, level)
        assert parameters(pruned) == want, (
            f"level {level} holds {parameters(pruned)} parameters, its nodes and heads have {want}: what is missing?"
        )
        shared = {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in pruned.parameters()}
        assert not shared, (
            "both nets hold the same tensors: training the pruned one would change the whole one; copy the weights"
        )


def _explain(pruned: nn.Module, net: NestedUNet, level: int) -> None:
    """Say why the logits differ."""
    theirs = net.state_dict()
    ours = {name: value for name, value in pruned.state_dict().items() if name in theirs}
    weights = [name for name in ours if name.endswith(("weight", "bias"))]
    equal = [ours[name].shape == theirs[name].shape and torch.equal(ours[name], theirs[name]) for name in weights]
    kernels = [same for name, same in zip(weights, equal, strict=True) if ours[name].ndim == 4]
    assert any(kernels), "none of the trained weights is in the pruned net: copy them from net.state_dict()"
    assert all(equal), (
        f"some weights are not those of the net, such as {weights[equal.index(False)]}: copy every entry that stays"
    )
    running = [name for name in ours if "running" in name]
    assert all(torch.equal(ours[name], theirs[name]) for name in running), (
        "the weights are copied, the running means of batch norm are not: they are buffers, which state_dict() holds "
        "and parameters() does not"
    )
    raise AssertionError(
        f"at level {level} the heads give other logits than in the whole net: nothing is to be changed"
    )


@as_check
def check_choose_level(fn: Callable[[Mapping[int, float], float], int]) -> None:
    """`fn(scores, tolerance) -> level`: the smallest level at most `tolerance` below the best validation score."""
    levels = {1: 0.70, 2: 0.80, 3: 0.815, 4: 0.81}
    cases = [
        (levels, 0.02, 2),
        (levels, 0.0, 3),
        (levels, 0.2, 1),
        (levels, 0.012, 3),
        ({1: 0.42, 2: 0.50}, 0.1, 1),
        ({1: 0.50, 2: 0.75, 3: 0.75}, 0.25, 1),  # powers of two, so that "at most" is exact
        ({1: 0.80, 2: 0.60, 3: 0.81}, 0.05, 1),
        ({4: 0.81, 3: 0.815, 2: 0.80, 1: 0.70}, 0.02, 2),
        ({1: 0.90, 2: 0.915, 3: 0.93}, 0.02, 2),
    ]
    found = []
    for scores, tolerance, _ in cases:
        given = dict(scores)
        found.append(fn(given, tolerance))
        assert list(given.items()) == list(scores.items()), "the scores that were given are changed: leave them alone"
    assert all(level is not None for level in found), "it returns nothing: return the level"
    assert all(isinstance(level, int) for level in found), f"a level is a whole number, not {found[0]!r}"
    assert found[0] != 0.8, "a score came out: return the level that has it"
    assert found[:3] != [3, 3, 3], "the best level is taken whatever it costs: a smaller one may be good enough"
    assert found[:3] != [4, 3, 4], "the largest level within the tolerance is taken: the smallest is cheaper"
    assert found[0] != 1 or found[1] != 2, "levels count from 1, as the keys do: this is one too low"
    assert found[3] != 2 or found[1] != 3, (
        "the tolerance is measured from the deepest level: measure it from the best one"
    )
    assert found[4] != 2 or found[1] != 3, (
        "the tolerance is taken as a share of the best score: it is a difference of scores"
    )
    assert found[5] == 1 or found[2] != 1, "exactly `tolerance` below the best is still allowed: >= and not >"
    assert found[6] != 3, "level 1 is close enough here although level 2 is not: look at every level, from the smallest"
    assert found[7] == found[0], "the answer depends on the order of the scores: go through the levels by their number"
    assert found[8] != 1, (
        "small steps add up: 0.90 is 0.03 below the best, so compare each level with the best, not with the next"
    )
    for (scores, tolerance, want), level in zip(cases, found, strict=True):
        assert level == want, (
            f"scores {scores} and tolerance {tolerance}: level {want} is the smallest that is close enough, not {level}"
        )
