"""Lessons 07 and 08: the loss on every head, the mask made from all of them, and the net cut to one of them."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checks.machinery import as_check, ask, is_same, told
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice
from course_lib.measure import parameters


@as_check
def check_deep_supervision_loss(fn: Callable[[list[Tensor], Tensor], Tensor]) -> None:
    """`fn(outputs, target) -> loss`: the mean of `bce_dice` over the heads, a scalar to call backward on."""
    outputs = [torch.randn(2, 1, 4, 6).mul(scale).requires_grad_() for scale in (1.0, 3.0, 0.5)]
    target = (torch.rand(2, 1, 4, 6) > 0.6).float()
    loss = ask(fn, outputs, target, returns=object, what="the loss")
    assert isinstance(loss, Tensor), f"a tensor is wanted, whose backward() can be called, not {type(loss).__name__}"
    assert loss.numel() == 1, f"one number is wanted, this has shape {tuple(loss.shape)}: average over the heads"
    assert loss.requires_grad, "the loss has no path back to the logits: no .item(), detach or no_grad on the way"
    heads, losses = torch.stack(outputs).detach(), torch.vmap(bce_dice)  # of every head
    maps, truth = heads.sigmoid(), target.expand_as(heads)
    each = losses(heads, truth)
    of_mean, first_maps = bce_dice(heads.mean(0), target), bce_dice(maps.mean(0).logit(), target)
    mistakes = {
        "the heads are added up: with the mean, the size of the loss does not depend on their number": each.sum(),
        "only the deepest head is trained, as without deep supervision: every head needs its loss": each[-1],
        "only the first head in the list is trained, the shallowest: every head needs its loss": each[0],
        "the deepest head is left out": each[:-1].mean(),
        "the first head in the list is left out": each[1:].mean(),
        "the worst head alone counts: take the mean, not the maximum": each.max(),
        "the logits are averaged first: then heads that are wrong in opposite ways look right together": of_mean,
        "the probability maps are averaged first: the mean belongs outside, over one loss for each head": first_maps,
        "bce_dice takes logits and applies the sigmoid itself": losses(maps, truth).mean(),
        "bce_dice takes the logits first, then the target": losses(truth, heads).mean(),
        "the loss is cross entropy alone: take bce_dice": F.binary_cross_entropy_with_logits(heads, truth),
    }
    shown = f"{[round(v, 3) for v in each.tolist()]}, their mean {each.mean():.4f}: not {loss:.4f}"
    told(loss.squeeze(), each.mean(), mistakes, f"the heads' losses are {shown}")
    loss.backward()
    for head, logits in enumerate(outputs, start=1):
        assert logits.grad is not None and logits.grad.any(), f"no gradient reaches head {head}: was it detached?"
    told(fn(outputs[:1], target), each[0], {}, "with a single head it is wrong: divide by len(outputs)")


@as_check
def check_accurate_mode(fn: Callable[[list[Tensor]], Tensor]) -> None:
    """`fn(outputs) -> map`: the mean of the heads' probability maps, (N, classes, H, W)."""
    outputs = [3 * torch.randn(2, 2, 4, 6) for _ in range(4)]
    mean = ask(fn, outputs, changed="the logits themselves were changed: use sigmoid(), not sigmoid_()")
    shape = tuple(mean.shape)
    assert shape == (2, 2, 4, 6), f"one map for each image, (2, 2, 4, 6), not {shape}: average over the heads alone"
    assert mean.dtype != torch.bool, "a mask came out: return the probability map, the threshold comes last"
    heads = torch.stack(outputs)
    maps, of_mean = heads.sigmoid(), heads.mean(0).sigmoid()
    mistakes = {
        "only the deepest head is used, which is the fast mode at full depth": maps[-1],
        "only the first head in the list is used, which is the fast mode at level 1": maps[0],
        "the logits are averaged before the sigmoid: one head that is very sure then outvotes the others": of_mean,
        "the logits are averaged and no sigmoid follows": heads.mean(0),
        "the maps are added up: divide by the number of heads": maps.sum(0),
        "masks are averaged: keep the probabilities, the threshold comes last": (maps > 0.5).float().mean(0),
        "the median came out: the paper takes the mean": maps.median(0).values,
        "the highest probability came out: the paper takes the mean": maps.amax(0),
        "the softmax makes the heads compete: each map is a sigmoid of its own": heads.softmax(0).mean(0),
        "a softmax over the classes: in this course each class has a sigmoid of its own": heads.softmax(2).mean(0),
    }
    told(mean, maps.mean(0), mistakes, "the values are not the mean of the four sigmoids")
    told(fn(outputs[:2]), maps[:2].mean(0), {}, "with two heads it is wrong: no fixed number")


@as_check
def check_prune(fn: Callable[[NestedUNet, int], nn.Module]) -> None:
    """`fn(net, level) -> net`: the shallower grid with the same weights; its heads give the same logits bit for bit."""
    net, image = NestedUNet(3, 2, (4, 6, 7, 9), deep_supervision=True), torch.randn(3, 3, 16, 24)
    net(image)  # batch norm remembers something now
    whole = net.eval()(image)
    changed = "the net that was given is changed itself: build a new one and leave the old one alone"
    for level in (1, 2, 3):
        pruned = ask(fn, net, level, returns=nn.Module, what="a net", changed=changed)
        assert pruned is not net or level == 3, "the net comes back as it was"
        outputs = pruned.eval()(image)
        assert isinstance(outputs, list | tuple), "the pruned net returns a list of logits, as the whole one does"
        depth = getattr(pruned, "depth", level)
        assert depth == level, f"level {level} has depth {level} and so {level + 1} widths; this net has depth {depth}"
        assert len(outputs) == level, f"heads 1 to {level} stay at level {level}: {level} logits, not {len(outputs)}"
        held, want = parameters(pruned), parameters(net.prune(level))
        shown = f"level {level} still holds {held} parameters, its nodes with i + j <= {level} and heads have {want}"
        assert held == want, f"{shown}: keep all of these and leave the others out, do not only skip their heads"
        if not is_same(outputs, whole[:level]):
            _assert_copied(pruned.state_dict(), net.state_dict())
            raise AssertionError(f"at level {level} the heads give other logits than in the whole net: change nothing")
        shared = {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in pruned.parameters()}
        assert not shared, "both nets hold the same tensors: copy the weights, or training one of them changes both"


def _assert_copied(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    same = {name: is_same(ours[name], theirs[name]) for name in ours if name in theirs}
    kernels = [same[name] for name in same if theirs[name].ndim == 4]
    assert any(kernels), "none of the trained weights is in the pruned net: copy them from net.state_dict()"
    other = [name for name in same if not same[name]]
    weights = [name for name in other if name.endswith(("weight", "bias"))]
    assert not weights, f"some weights are not those of the net, such as {weights[0]}: copy every entry that stays"
    assert not other, "the running means of batch norm are not copied: state_dict() holds them, parameters() does not"


@as_check
def check_choose_level(fn: Callable[[Mapping[int, float], float], int]) -> None:
    """`fn(scores, tolerance) -> level`: the smallest level at most `tolerance` below the best validation score."""
    levels = {1: 0.70, 2: 0.80, 3: 0.815, 4: 0.81}
    cases = [
        (levels, 0.02, 2, "of the levels within the tolerance the smallest is wanted"),
        (levels, 0.0, 3, "without tolerance the best level is wanted"),
        (levels, 0.2, 1, "where every level is within the tolerance, the first is wanted"),
        (levels, 0.012, 3, "the tolerance is measured from the deepest level, not from the best one"),
        ({1: 0.42, 2: 0.50}, 0.1, 1, "the tolerance is taken as a share of the best score: it is a difference"),
        ({1: 0.50, 2: 0.75, 3: 0.75}, 0.25, 1, "exactly `tolerance` below the best is still allowed: >= and not >"),
        ({1: 0.80, 2: 0.60, 3: 0.81}, 0.05, 1, "level 1 is close enough here although level 2 is not: look at all"),
        (dict(reversed(levels.items())), 0.02, 2, "the answer depends on the order of the scores"),
        ({1: 0.90, 2: 0.915, 3: 0.93}, 0.02, 2, "small steps add up: 0.90 is 0.03 below the best, not below the next"),
    ]
    mistakes = {  # in the first case
        "the best level is taken whatever it costs: a smaller one may be good enough": 3,
        "the largest level within the tolerance is taken: the smallest is cheaper": 4,
        "levels count from 1, as the keys do: this is one too low": 1,
    }
    changed = "the scores that were given are changed: leave them alone"
    for n, (scores, tolerance, right, hint) in enumerate(cases):
        level = ask(fn, scores, tolerance, returns=object, what="the level", changed=changed)
        assert isinstance(level, int), f"a level is a whole number, not {level!r}"
        shown = f"Scores {scores} and tolerance {tolerance}: level {right} is the smallest that is close enough"
        told(level, right, {} if n else mistakes, f"{hint}. {shown}, not {level}")
