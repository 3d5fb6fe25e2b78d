from course_lib.checks import check_skips
from course_lib.grid import SKIPS

CHECK, LESSON, EXERCISE = check_skips, "06_nested_skips", "skips"


def with_one(wiring, columns):
    """Right for all wirings but one."""
    return lambda name, j: columns(j) if name == wiring else list(SKIPS[name](j))


def named(name, function):
    function.__name__ = name
    return function


def counts(wiring, j):
    return len(SKIPS[wiring](j))


def nothing_for_unet_plus(wiring, j):
    if wiring != "unet+":
        return list(SKIPS[wiring](j))


def names(wiring, j):
    return [f"x{k}" for k in SKIPS[wiring](j)]


def hole(wiring, j):
    raise NotImplementedError("your code here")


WRONG = {
    r"'unet\+\+': x\^\{i,1\} would read itself": named("reads_itself", with_one("unet++", lambda j: range(j + 1))),
    r"'unet\+': x\^\{i,1\} would read itself": named("column_j", with_one("unet+", lambda j: [j])),
    "would read a column that is made later": named("the_right_neighbour", with_one("unet+", lambda j: [j + 1])),
    "column -1 does not exist": named("two_to_the_left", with_one("unet+", lambda j: [j - 2])),
    "UNet.. reads the encoder too": named("without_the_encoder", with_one("unet++", lambda j: range(1, j) or [0])),
    "UNet. has short skips: the neighbour": named("unet_plus_as_unet", with_one("unet+", lambda j: [0])),
    "the decoders of U-Net.e read the encoder": named("unet_e_as_unet_plus", with_one("unet-e", lambda j: [j - 1])),
    "UNet.. keeps the long skips": named("short_skips_alone", with_one("unet++", lambda j: [j - 1])),
    "UNet.. is dense": named("first_and_last", with_one("unet++", lambda j: sorted({0, j - 1}))),
    "from left to right, column 0 first": named("nearest_first", with_one("unet++", lambda j: range(j - 1, -1, -1))),
    "'unet': left of column 1 there is only column 0": named("no_skip_at_all", with_one("unet", lambda j: [])),
    r"'unet': .* reads the columns \[0\] of its row, \[0, 1\] came out": named(
        "dense_everywhere", with_one("unet", lambda j: range(j))
    ),
    "a list is wanted, not the number 1": counts,
    r"nothing comes back for 'unet\+'": nothing_for_unet_plus,
    "columns are whole numbers, these are \\['x0'\\]": names,
    "hole is not written yet": hole,
}
