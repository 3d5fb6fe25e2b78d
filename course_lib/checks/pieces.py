"""Lessons 09, 11 and 12: a folded norm, a gate, maps of other rows, maps made of tiles, and nuclei counted."""

from collections.abc import Callable, Sequence
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checks.machinery import as_check, as_number, ask, told


@as_check
def check_fold(fn: Callable[[nn.Conv2d, nn.BatchNorm2d], tuple[Tensor, Tensor]]) -> None:
    """`fn(conv, norm) -> (weight, bias)`: one convolution that does what both do in evaluation."""
    conv, norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, eps=0.5)
    old, b = conv.weight.data, conv.bias.data
    gamma, beta = norm.weight.data.normal_(), norm.bias.data.normal_()
    mean, var = norm.running_mean.normal_(), norm.running_var.uniform_(0.25, 4)
    changed = "the layers that were given have changed: make new tensors, do not write into the old ones"
    answer = ask(fn, conv, norm, returns=object, what="the new weight and the new bias", changed=changed)
    assert isinstance(answer, tuple | list) and len(answer) == 2, "two tensors are wanted: (weight, bias)"
    weight, bias = answer
    scale, column = gamma / (var + norm.eps).sqrt(), (4, 1, 1, 1)
    mistakes = {
        "the weight is as before: each output channel is scaled by its norm": old,
        "eps is missing under the root": old * (gamma / var.sqrt()).view(column),
        "the norm divides by the root of the variance, the standard deviation": old * (scale**2 / gamma).view(column),
        "gamma (norm.weight) is missing": old * (scale / gamma).view(column),
        "the scale belongs to output channels, the first index of the weight": old * scale[:3, None, None],
    }
    told(weight, old * scale.view(column), mistakes, "the weight is not conv.weight * gamma / sqrt(var + eps)")
    mistakes = {
        "the running mean is missing: it is subtracted before the scaling": b * scale + beta,
        "the convolution's own bias is missing: it passes the norm as well": beta - mean * scale,
        "beta (norm.bias) is missing: it comes last": (b - mean) * scale,
        "conv.bias is not scaled: it passes through the norm too": b - mean * scale + beta,
        "the running mean is added: the norm subtracts it": (b + mean) * scale + beta,
        "beta is scaled: it is added after the scaling": (b - mean + beta) * scale,
    }
    wrong = f"the bias, of shape {tuple(bias.shape)}, is not (conv.bias - mean) * scale + beta, one value a channel"
    told(bias, (b - mean) * scale + beta, mistakes, wrong)


@as_check
def check_gate(fn: Callable[..., Tensor]) -> None:
    """`fn(f, g, W_f, W_g, W_psi) -> alpha * f`, alpha = sigmoid(W_psi(relu(W_g(g) + W_f(f))))."""
    layers = W_f, W_g, W_psi = nn.Conv2d(4, 3, 1), nn.Conv2d(6, 3, 1), nn.Conv2d(3, 1, 1)
    f, g = (nn.Conv2d(1, channels, 1)(torch.randn(2, 1, 5, 7)) for channels in (4, 6))  # with a gradient
    changed = "f itself has changed, or g itself has changed: make a new tensor"
    passed = ask(fn, f, g, *layers, what="what passes of f", changed=changed)
    of_f, of_g, both = F.relu(W_f(f)), F.relu(W_g(g)), W_g(g) + W_f(f)
    alpha = W_psi(F.relu(both)).sigmoid()
    mistakes = {
        "that is alpha, or one channel: return alpha times f, in all its channels": alpha,
        "the ReLU between the layers is missing": f * W_psi(both).sigmoid(),
        "the sigmoid is missing: alpha lies between 0 and 1": f * W_psi(F.relu(both)),
        "g has no say: add W_g(g) before the ReLU": f * W_psi(of_f).sigmoid(),
        "f has no say in alpha: add W_f(f) before the ReLU": f * W_psi(of_g).sigmoid(),
        "alpha is added: it multiplies f": f + alpha,
        "the gate is the wrong way round: where alpha is 1, f passes": (1 - alpha) * f,
        "add first, then one ReLU of the sum": f * W_psi(of_g + of_f).sigmoid(),
    }
    told(passed, alpha * f, mistakes, "that is not sigmoid(W_psi(relu(W_g(g) + W_f(f)))) times f")
    learns = f, g, *(layer.weight for layer in layers)
    wanted = torch.autograd.grad((alpha * f).sum(), learns)
    slopes = torch.autograd.grad(passed.sum(), learns, allow_unused=True) if passed.requires_grad else ()
    wrong = "the values are right, the gradients are not: is alpha or f detached, or made under no_grad? A gate learns"
    told(slopes, wanted, {}, wrong, tol=1e-4)


@as_check
def check_at_row(fn: Callable[[Tensor, int, int], Tensor]) -> None:
    """`fn(x, k, i)`: a map of row k at the size of row i, maxima going down, bilinear with aligned corners going up."""
    x = torch.randn(2, 3, 16, 24)
    ask(fn, x, 0, 1)
    same = ask(fn, x, 2, 2, what="the map as it is, where k is i")
    told(same, x, {}, "where k is i the map is of the right size already: return it as it is")
    for k, i in permutations(range(5), 2):
        step = 2 ** abs(k - i)
        up, double = (nn.Upsample(scale_factor=times, mode="bilinear", align_corners=True) for times in (step, 2))
        if k < i:
            right, way, power = F.max_pool2d(x, step), "halves", "(i - k)"
            mistakes = {
                "up and down are swapped: row 0 is the largest": up(x),
                "two rows down is a quarter of the side, not a half: 2 ** (i - k)": F.max_pool2d(x, 2),
                "going down takes the maximum, not the mean": F.avg_pool2d(x, step),
                "going down takes the maximum of the pixels, not every fourth": x[:, :, ::step, ::step],
            }
        else:
            right, way, power = up(x), "doubles", "(k - i)"
            loose, twice = F.interpolate(x, scale_factor=step, mode="bilinear"), double(double(x))
            mistakes = {
                "two rows up is four times the side, not twice: 2 ** (k - i)": double(x),
                "going up is bilinear, not the nearest pixel": F.interpolate(x, scale_factor=step),
                "corners are not aligned: align_corners=True, as in the grid": loose,
                "doubling twice is not one step of four: interpolate once, with scale_factor=2 ** (k - i)": twice,
            }
        shown = f"row {k} at row {i}: every row {way} once more, so the step is 2 ** {power} = {step}, whatever the row"
        told(fn(x, k, i), right, mistakes, shown)
    x.requires_grad_()
    learns = [fn(x, k, i).requires_grad for k, i in ((0, 2), (2, 0), (1, 1))]
    assert all(learns), "no gradient reaches the map that came in: is it detached, or read under no_grad?"


@as_check
def check_blend(fn: Callable[[Sequence[Tensor], Sequence[int], Tensor], Tensor]) -> None:
    """`fn(tiles, starts, weights)`: the weighted mean of what the tiles (H, T) say about each column."""
    weights = torch.tensor([0.1, 0.5, 1.0, 1.0, 0.5, 0.1])
    changed = "the tiles themselves have changed: make new tensors"
    for rows, starts in ((2, [0, 4, 6]), (3, [0, 2, 4, 9])):
        tiles, ends, size = torch.rand(len(starts), rows, 6), [*starts[1:], starts[-1] + 6], (rows, starts[-1] + 6)
        joined = ask(fn, [*tiles], starts, weights, what="the joined map", changed=changed)
        assert joined.dtype == torch.float32, f"it is {joined.dtype}: make the sums float32, as the tiles are"
        wrong = "the tiles do not stand side by side, take the places from `starts`, the last one ends the map"
        assert joined.shape == size, f"it has shape {tuple(joined.shape)}, not {size}: {wrong}"
        values, total = _sum(weights * tiles, starts), _sum(weights.expand_as(tiles), starts)
        plain, count = _sum(tiles, starts), _sum(torch.ones_like(tiles), starts)
        last = torch.cat([tile[:, : b - a] for tile, a, b in zip(tiles, starts, ends, strict=True)], dim=1)
        mistakes = {
            "the weighted tiles are added up: divide by the sum of the weights at each column": values,
            "the weights have no say: near its rim a tile knows less, and counts less": plain / count,
            "overlapping columns are added up, not averaged": plain,
            "the last tile overwrites the others: add up weight times tile, and the weights beside it": last,
            "divide by the weights that fall on a column, not by the sum of one tile's weights": values / weights.sum(),
            "divide by the sum of the weights at a column, not by the number of tiles there": values / count,
        }
        wrong = "that is not the sum of weight times tile over the sum of the weights, at each column"
        told(joined, values / total, mistakes, wrong)


def _sum(tiles: Tensor, starts: Sequence[int]) -> Tensor:
    """The sum of `tiles` (..., T), each of which begins at its column of `starts`."""
    return sum(F.pad(tile, (start, starts[-1] - start)) for tile, start in zip(tiles, starts, strict=True))


@as_check
def check_average_precision(fn: Callable[[Tensor, float], float]) -> None:
    """`fn(table, threshold)`: of the IoU of every found with every true nucleus, tp / (tp + fp + fn)."""
    table = torch.tensor([[0.9, 0.0, 0.1, 0.1], [0.0, 0.7, 0.1, 0.0], [0.0, 0.2, 0.5, 0.0]])  # 3 found, 4 true
    changed = "the table itself has changed: make a new tensor"
    score = as_number(ask(fn, table, 0.5, returns=object, what="the score", changed=changed))
    shown = f"3 found, 4 true, two pairs above 0.5: tp 2, fp 1, fn 2; the score is 2/5, and yours is {score:.3f}"
    mistakes = {
        "a pair counts where its IoU is above the threshold, not where it is equal": 3 / 4,
        f"what is missing is not counted, the true nuclei that nothing matches: add fn below. {shown}": 2 / 3,
        f"what is too much is not counted, the found ones that match nothing: add fp below. {shown}": 2 / 4,
        f"that is Dice, 2 tp / (2 tp + fp + fn): tp stands once above and once below. {shown}": 4 / 7,
        f"tp pairs were counted twice below: found + true holds each of them twice. {shown}": 2 / 7,
        f"fp is no number of small overlaps: it is the found cells without a partner. {shown}": 2 / 9,
        f"the table has 12 pairs, and the score is not a share of pairs. {shown}": 2 / 12,
        "that is tp: divide by tp + fp + fn": 2,
    }
    told(score, 2 / 5, mistakes, shown)
    strict = as_number(fn(table, 0.75))
    told(strict, 1 / 6, {}, f"at threshold 0.75 one pair is left, 1/6, and yours is {strict:.3f}")
    for empty, shape in (("nothing found, two true", (0, 2)), ("two found, none true", (2, 0))):
        try:
            score = as_number(fn(torch.zeros(shape), 0.5))
        except (IndexError, RuntimeError) as problem:
            raise AssertionError(f"with {empty} it stops: count `table > threshold`, which any table has") from problem
        told(score, 0, {}, f"with {empty} the score is 0, and yours is {score:.3f}")
