import torch

from course_lib.checks import check_blend

CHECK, LESSON, EXERCISE = check_blend, "12_your_own_data", "blend"


def sums(tiles, starts, weights):
    width = starts[-1] + len(weights)
    values, total = torch.zeros(len(tiles[0]), width), torch.zeros(width)
    for tile, start in zip(tiles, starts, strict=True):
        values[:, start : start + len(weights)] += weights * tile
        total[start : start + len(weights)] += weights
    return values, total


def added(tiles, starts, weights):
    return sums(tiles, starts, weights)[0]


def plain_mean(tiles, starts, weights):
    return divided(tiles, starts, torch.ones(len(weights)))


def divided(tiles, starts, weights):
    values, total = sums(tiles, starts, weights)
    return values / total


def added_unweighted(tiles, starts, weights):
    return sums(tiles, starts, torch.ones(len(weights)))[0]


def last_wins(tiles, starts, weights):
    found = torch.zeros(len(tiles[0]), starts[-1] + len(weights))
    for tile, start in zip(tiles, starts, strict=True):
        found[:, start : start + len(weights)] = tile
    return found


def side_by_side(tiles, starts, weights):
    return torch.cat(list(tiles), dim=1)


def one_tiles_weights(tiles, starts, weights):
    return sums(tiles, starts, weights)[0] / weights.sum()


def by_number_of_tiles(tiles, starts, weights):
    return sums(tiles, starts, weights)[0] / sums(tiles, starts, torch.ones(len(weights)))[1]


def in_place(tiles, starts, weights):
    for tile in tiles:
        tile *= weights
    return divided(tiles, starts, torch.ones(len(weights)))


def too_short(tiles, starts, weights):
    return divided(tiles, starts, weights)[:, : starts[-1]]


def fixed_places(tiles, starts, weights):
    return divided(tiles, [0, 4, 6, 10][: len(tiles)], weights)


def small_weights_ignored(tiles, starts, weights):
    values, total = sums(tiles, starts, weights)
    return values / total.clamp_min(1)


def in_double(tiles, starts, weights):
    return divided(tiles, starts, weights).double()


def two_results(tiles, starts, weights):
    return sums(tiles, starts, weights)


def nothing(tiles, starts, weights):
    divided(tiles, starts, weights)


def hole(tiles, starts, weights):
    raise NotImplementedError("your code here")


WRONG = {
    "divide by the sum of the weights at each column": added,
    "the weights have no say": plain_mean,
    "added up, not averaged": added_unweighted,
    "the last tile overwrites": last_wins,
    "stand side by side": side_by_side,
    "not by the sum of one tile's weights": one_tiles_weights,
    "not by the number of tiles": by_number_of_tiles,
    "the tiles themselves have changed": in_place,
    r"it has shape \(2, 6\)": too_short,
    "take the places from `starts`": fixed_places,
    "this is tuple": two_results,
    "that is not the sum of weight times tile": small_weights_ignored,
    "it is torch.float64": in_double,
    "it returns nothing": nothing,
    "hole is not written yet": hole,
}
