"""Lesson 12: tiles that are joined without a seam, and nuclei that are counted one by one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.checks.machinery import as_check


@as_check
def check_blend(fn: Callable[[Sequence[Tensor], Sequence[int], Tensor], Tensor]) -> None:
    """`fn(tiles, starts, weights)`: the weighted mean of what the tiles (H, T) say about each column."""
    weights = torch.tensor([0.1, 0.5, 1.0, 1.0, 0.5, 0.1])
    starts, tiles = [0, 4, 6], [torch.rand(2, 6) for _ in range(3)]
    kept = [tile.clone() for tile in tiles]
    found = fn(tiles, starts, weights)
    assert found is not None, "it returns nothing: return the joined map"
    assert isinstance(found, Tensor), f"one tensor is wanted, the joined map: this is {type(found).__name__}"
    assert all(map(torch.equal, tiles, kept)), "the tiles themselves have changed: make new tensors"
    assert found.shape != (2, 18), "the tiles stand side by side: they overlap, tile n begins at column starts[n]"
    assert found.shape == (2, 12), (
        f"it has shape {tuple(found.shape)}: two rows, and columns up to the end of the last tile, (2, 12)"
    )
    assert found.dtype == torch.float32, f"it is {found.dtype}: make the sums float32, as the tiles are"
    wanted, total = _sums(tiles, starts, weights)

    def is_(other: Tensor) -> bool:
        return bool(torch.allclose(found, other, atol=1e-6))

    assert not is_(wanted), "the weighted tiles are added up: divide by the sum of the weights at each column"
    plain, count = _sums(tiles, starts, torch.ones(6))
    assert not is_(plain / count), "the weights have no say: near its rim a tile knows less, and counts less"
    assert not is_(plain), "overlapping columns are added up, not averaged"
    last = torch.zeros(2, 12)
    for tile, start in zip(tiles, starts, strict=True):
        last[:, start : start + 6] = tile
    assert not is_(last), "the last tile overwrites the others: add up weight times tile, and the weights beside it"
    assert not is_(wanted / weights.sum()), (
        "divide by the weights that fall on a column, not by the sum of one tile's weights"
    )
    assert not is_(wanted / count), "divide by the sum of the weights at a column, not by the number of tiles there"
    assert is_(wanted / total), "that is not the sum of weight times tile over the sum of the weights, at each column"
    tiles, starts = [torch.rand(3, 6) for _ in range(4)], [0, 2, 4, 9]
    again = fn(tiles, starts, weights)
    wanted, total = _sums(tiles, starts, weights)
    assert isinstance(again, Tensor) and again.shape == wanted.shape and torch.allclose(again, wanted / total), (
        "right for three tiles, wrong for four that begin at 0, 2, 4 and 9: take the places from `starts`"
    )


@as_check
def check_average_precision(fn: Callable[[Tensor, float], float]) -> None:
    """`fn(table, threshold)`: of the IoU of every found with every true nucleus, tp / (tp + fp + fn)."""
    table = torch.tensor([[0.9, 0.0, 0.1, 0.1], [0.0, 0.7, 0.1, 0.0], [0.0, 0.2, 0.5, 0.0]])  # 3 found, 4 true
    given = table.clone()
    found = fn(table, 0.5)
    assert torch.equal(table, given), "the table itself has changed: make a new tensor"
    assert found is not None, "it returns nothing: return the score"
    found = float(found)
    shown = f"3 found, 4 true, two pairs above 0.5: tp 2, fp 1, fn 2; the score is 2/5, and yours is {found:.3f}"

    def is_(value: float) -> bool:
        return abs(found - value) < 1e-6

    assert not is_(3 / 4), "a pair counts where its IoU is above the threshold, not where it is equal"
    assert not is_(2 / 3), (
        "what is missing is not counted, the true nuclei that nothing matches: add fn below. " + shown
    )
    assert not is_(2 / 4), "what is too much is not counted, the found ones that match nothing: add fp below. " + shown
    assert not is_(4 / 7), "that is Dice, 2 tp / (2 tp + fp + fn): tp stands once above and once below. " + shown
    assert not is_(2 / 7), "tp pairs were counted twice below: found + true holds each of them twice. " + shown
    assert not is_(2 / 9), "fp is no number of small overlaps: it is the found cells without a partner. " + shown
    assert not is_(2 / 12), "the table has 12 pairs, and the score is not a share of pairs. " + shown
    assert not is_(2), "that is tp: divide by tp + fp + fn"
    assert is_(2 / 5), shown
    strict = float(fn(table, 0.75))
    assert abs(strict - 1 / 6) < 1e-6, f"at threshold 0.75 one pair is left, 1/6, and yours is {strict:.3f}"
    for shape, empty in (((0, 2), "nothing found, two true"), ((2, 0), "two found, none true")):
        try:
            score = float(fn(torch.zeros(shape), 0.5))
        except (IndexError, RuntimeError) as problem:
            raise AssertionError(f"with {empty} it stops: count `table > threshold`, which any table has") from problem
        assert score == 0, f"with {empty} the score is 0, and yours is {score:.3f}"


def _sums(tiles: Sequence[Tensor], starts: Sequence[int], weights: Tensor) -> tuple[Tensor, Tensor]:
    """Σ weight · tile (H, W) and Σ weight (W,)."""
    width = max(starts) + len(weights)
    values, total = torch.zeros(len(tiles[0]), width), torch.zeros(width)
    for tile, start in zip(tiles, starts, strict=True):
        values[:, start : start + len(weights)] += weights * tile
        total[start : start + len(weights)] += weights
    return values, total
