from course_lib.checks import check_count_mistakes

CHECK, LESSON, EXERCISE = check_count_mistakes, "00_start_here", "count_mistakes"


def swapped(predicted, true):
    predicted, true = predicted.bool(), true.bool()
    return (predicted & ~true).sum(), (true & ~predicted).sum()


def subtracts_uint8(predicted, true):
    return (true - predicted).sum().item(), (predicted - true).sum().item()


def all_wrong_pixels_twice(predicted, true):
    wrong = (predicted != true).sum().item()
    return wrong, wrong


def shares(predicted, true):
    predicted, true = predicted.bool(), true.bool()
    return (true & ~predicted).float().mean(), (predicted & ~true).float().mean()


def differences_of_areas(predicted, true):
    difference = int(true.sum()) - int(predicted.sum())
    return max(difference, 0), max(-difference, 0)


def one_number_an_image(predicted, true):
    predicted, true = predicted.bool(), true.bool()
    return (true & ~predicted).sum((1, 2, 3)), (predicted & ~true).sum((1, 2, 3))


def one_number(predicted, true):
    return (predicted != true).sum()


def wrong_negation(predicted, true):
    """~ of an integer is -1 - x, and 255 - x for uint8: never zero here."""
    return int((true & ~predicted).bool().sum()), int((predicted & true).bool().sum())


def only_for_integers(predicted, true):
    return int((true > predicted).sum()), int((predicted.int() - true.int()).clamp(min=0).sum()) + (
        predicted.dtype != true.new_zeros(1).byte().dtype
    )


WRONG = {
    "missed and invented are swapped": swapped,
    "uint8 cannot go below zero": subtracts_uint8,
    "count every wrong pixel: keep the two kinds apart": all_wrong_pixels_twice,
    "count pixels, do not average": shares,
    r"two numbers are wanted: \(missed, invented\)": one_number,
    r"3 pixels are missed and 1 is invented, but \(3, 2\) came out": wrong_negation,
    "bool masks give": only_for_integers,
    "lets mistakes cancel each other": differences_of_areas,
    "each is one number: sum over all pixels": one_number_an_image,
}
