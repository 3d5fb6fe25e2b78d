import torch.nn.functional as F

from course_lib.checks import check_at_row

CHECK, LESSON, EXERCISE = check_at_row, "11_relatives", "at_row"


def up(x, factor, **options):
    return F.interpolate(x, scale_factor=factor, **({"mode": "bilinear", "align_corners": True} | options))


def one_of(down, up):
    """An answer from what it does going down and going up."""

    def at_row(x, k, i):
        return down(x, 2 ** (i - k)) if k < i else up(x, 2 ** (k - i)) if k > i else x

    return at_row


def swapped(x, k, i):
    return up(x, 2 ** (i - k)) if k < i else F.max_pool2d(x, 2 ** (k - i)) if k > i else x


def half(x, k, i):
    return F.max_pool2d(x, 2) if k < i else up(x, 2 ** (k - i)) if k > i else x


def twice(x, k, i):
    return F.max_pool2d(x, 2 ** (i - k)) if k < i else up(x, 2) if k > i else x


def no_third_case(x, k, i):
    if k < i:
        return F.max_pool2d(x, 2 ** (i - k))
    if k > i:
        return up(x, 2 ** (k - i))


def always_up(x, k, i):
    return F.max_pool2d(x, 2 ** (i - k)) if k < i else up(x, 2 ** (k - i + 1))


def step_of(step):
    """An answer whose step is a function of k and i: right at a distance of two rows, or for row 0 alone."""

    def at_row(x, k, i):
        return F.max_pool2d(x, step(k, i)) if k < i else up(x, step(i, k)) if k > i else x

    return at_row


def down_right(x, k, i):
    return F.max_pool2d(x, 2 ** (i - k)) if k < i else up(x, 2 * (k - i)) if k > i else x


def row_by_row(x, k, i):
    while k < i:
        x, k = F.max_pool2d(x, 2), k + 1
    while k > i:
        x, k = up(x, 2), k - 1
    return x


def detached(x, k, i):
    return F.max_pool2d(x, 2 ** (i - k)) if k < i else up(x.detach(), 2 ** (k - i)) if k > i else x


def an_array(x, k, i):
    return one_of(F.max_pool2d, up)(x, k, i).numpy()


def hole(x, k, i):
    raise NotImplementedError("your code here")


WRONG = {
    "up and down are swapped": swapped,
    "not a half": half,
    "not twice": twice,
    "the maximum, not the mean": one_of(F.avg_pool2d, up),
    "not every fourth": one_of(lambda x, n: x[:, :, ::n, ::n], up),
    "not the nearest pixel": one_of(F.max_pool2d, lambda x, n: F.interpolate(x, scale_factor=n)),
    "corners are not aligned": one_of(F.max_pool2d, lambda x, n: up(x, n, align_corners=False)),
    "it returns nothing": no_third_case,
    "of the right size already": always_up,
    r"row 0 at row 3: .* 2 \*\* \(i - k\) = 8": step_of(lambda above, below: 2 * (below - above)),
    r"row 0 at row 1: .* 2 \*\* \(i - k\) = 2": step_of(lambda above, below: 4),
    "row 1 at row 2: every row halves once more": step_of(lambda above, below: 2**below),
    r"row 3 at row 0: .* 2 \*\* \(k - i\) = 8": down_right,
    "doubling twice": row_by_row,
    "no gradient reaches": detached,
    "a tensor is wanted": an_array,
    "hole is not written yet": hole,
}
