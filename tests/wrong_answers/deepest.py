from math import gcd, log2

from course_lib.checks import check_deepest

CHECK, LESSON, EXERCISE = check_deepest, "05_how_deep", "deepest"


def right(height, width):
    depth = 0
    while height % 2 == 0 and width % 2 == 0:
        height, width, depth = height // 2, width // 2, depth + 1
    return depth


def one_too_many(height, width):
    return right(height, width) + 1


def height_alone(height, width):
    return right(height, height)


def width_alone(height, width):
    return right(width, width)


def the_better_side(height, width):
    return max(right(height, height), right(width, width))


def logarithm(height, width):
    return int(log2(min(height, width)))


def until_one_pixel(height, width):
    depth = 0
    while min(height, width) > 1:
        height, width, depth = height // 2, width // 2, depth + 1
    return depth


def divisor(height, width):
    return gcd(height, width)


def forgets_to_return(height, width):
    depth = right(height, width)
    depth += 0


def at_most_four(height, width):
    return min(right(height, width), 4)


def sum_of_sides(height, width):
    return right(height + width, height + width)


def hole(height, width):
    raise NotImplementedError("your code here")


WRONG = {
    "one too many: count the halvings": one_too_many,
    "only one side is looked at": height_alone,
    "of the two sides the less divisible one decides": the_better_side,
    "the size of the sides is counted, not their divisibility": logarithm,
    "100 becomes 50, then 25, and 25 is odd": until_one_pixel,
    "it returns nothing": forgets_to_return,
    "this is a divisor": divisor,
    "96x96 can be halved 5 times without a remainder, 4 came out": at_most_four,
    "96x96 can be halved 5 times without a remainder, 6 came out": sum_of_sides,
    "a depth needs both sides to be divisible": width_alone,
    "hole is not written yet": hole,
}
