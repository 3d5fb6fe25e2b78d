import torch
import torch.nn.functional as F

from course_lib.checks import check_upsample_row

CHECK, LESSON, EXERCISE = check_upsample_row, "03_encoder_decoder", "upsample_row"


def right_positions(k, n):
    return k * (n - 1) / (2 * n - 1)


def linear(row, left, share):
    return (1 - share) * row[left] + share * row[(left + 1).clamp(max=len(row) - 1)]


def changed(name, positions=right_positions, mix=linear):
    """Where output k of n values reads, and what it makes of the values left and right of that place."""

    def answer(row):
        n = len(row)
        places = positions(torch.arange(2 * n), n).clamp(0, n - 1)
        left = places.long()
        return mix(row, left, places - left)

    answer.__name__ = name
    return answer


right = changed("right")
divides_by_2n = changed("divides_by_2n", lambda k, n: k * (n - 1) / (2 * n))
n_steps = changed("n_steps", lambda k, n: k * n / (2 * n - 1))
half_steps = changed("half_steps", lambda k, n: k / 2)
divides_by_2n_plus_1 = changed("divides_by_2n_plus_1", lambda k, n: k * (n - 1) / (2 * n + 1))
cuts_the_fraction = changed("cuts_the_fraction", mix=lambda row, left, share: row[left])
rounds = changed("rounds", mix=lambda row, left, share: row[(left + share).round().long()])
reads_behind_the_end = changed(
    "reads_behind_the_end", mix=lambda row, left, share: (1 - share) * row[left] + share * row[left + 1]
)
weights_swapped = changed("weights_swapped", mix=lambda row, left, share: linear(row, left, 1 - share))
smooth_weights = changed("smooth_weights", mix=lambda row, left, share: linear(row, left, share.square()))


def corners_not_aligned(row):
    return F.interpolate(row[None, None].float(), scale_factor=2, mode="linear", align_corners=False)[0, 0]


def batch_and_channel_left(row):
    return F.interpolate(row[None, None].float(), scale_factor=2, mode="linear", align_corners=True)


def cubic(row):
    row = row[None, None, None].float()
    return F.interpolate(row, size=(1, 2 * row.shape[-1]), mode="bicubic", align_corners=True)[0, 0, 0]


def nearest(row):
    return row.repeat_interleave(2)


def twice_the_row(row):
    return torch.cat([row, row])


def zeros_inserted(row):
    out = torch.zeros(2 * len(row))
    out[::2] = row
    return out


def midpoints(row):
    out = torch.zeros(2 * len(row) - 1)
    out[::2], out[1::2] = row, (row[1:] + row[:-1]) / 2
    return out


def midpoints_and_the_last_twice(row):
    between = torch.cat([(row[1:] + row[:-1]) / 2, row[-1:]])
    return torch.stack([row, between], dim=1).flatten()


def reversed_row(row):
    return right(row).flip(0)


def in_a_loop(row, out, last):
    n = len(row)
    for k in range(last):
        position = k * (n - 1) / (2 * n - 1)
        left = int(position)
        out[k] = (1 - position + left) * row[left] + (position - left) * row[min(left + 1, n - 1)]
    return out


def last_left_out(row):
    return in_a_loop(row, torch.zeros(2 * len(row)), last=2 * len(row) - 1)


def type_of_the_row(row):
    return in_a_loop(row, torch.zeros(2 * len(row), dtype=row.dtype), last=2 * len(row))


def two_values_only(row):
    return torch.stack([row[0], (2 * row[0] + row[1]) / 3, (row[0] + 2 * row[1]) / 3, row[1]])


def a_list(row):
    return right(row).tolist()


def in_place(row):
    row -= row.min()
    return right(row)


def straight_from_end_to_end(row):
    return torch.linspace(row[0].item(), row[-1].item(), 2 * len(row))


def hole(row):
    raise NotImplementedError("your code here")


WRONG = {
    "these are the values of align_corners=False": corners_not_aligned,
    "every value is only repeated": nearest,
    "the whole row is repeated behind itself": twice_the_row,
    "every second value is 0": zeros_inserted,
    "2n outputs have 2n - 1 steps between them": divides_by_2n,
    "n values have n - 1 steps between them, not n": n_steps,
    "the position grows by one half": half_steps,
    r"last output reads position n - 1, so it is 8 for \[2.0, 8.0\], not 5.6": divides_by_2n_plus_1,
    "2 values became 3: values midway": midpoints,
    "grows by one half, which reaches the end too early": midpoints_and_the_last_twice,
    "the row runs backwards": reversed_row,
    "the fraction of the position is cut off": cuts_the_fraction,
    "or positions are rounded: take a mean": rounds,
    "a value behind the end": reads_behind_the_end,
    r"so it is 8 for \[2.0, 8.0\], not 0:": last_left_out,
    "the two weights are swapped": weights_swapped,
    "a row of integers loses what lies between them": type_of_the_row,
    "3 values make 6, not 4": two_values_only,
    "a tensor is wanted, this is list": a_list,
    r"one row is wanted, this has shape \(1, 1, 4\)": batch_and_channel_left,
    "the row that came in was changed": in_place,
    r"the ends are right, but output 1 of \[2.0, 8.0\] is": cubic,
    r"the ends are right, but output . of \[1.0, 7.0, 3.0\] is": straight_from_end_to_end,
    "the nearer one weighing more": smooth_weights,
    "hole is not written yet": hole,
}
