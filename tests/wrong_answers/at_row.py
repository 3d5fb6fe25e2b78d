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
    "hole is not written yet": hole,
}
