import numpy as np

from course_lib.checks import check_dice
from tests.wrong_answers.iou import parts, ratio

CHECK, LESSON, EXERCISE = check_dice, "01_images_and_scores", "dice"


def iou(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return ratio(tp, tp + fp + fn)


def without_factor_two(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return ratio(tp, 2 * tp + fp + fn)


def over_the_union(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return ratio(2 * tp, tp + fp + fn)


def plus_means_or_between_bool(predicted, true):
    """Right for uint8; between bool masks + gives the union."""
    return ratio(2 * (predicted * true).sum().item(), (predicted + true).sum().item())


def precision(predicted, true):
    tp, fp, _, _ = parts(predicted, true)
    return ratio(tp, tp + fp)


def recall(predicted, true):
    tp, _, fn, _ = parts(predicted, true)
    return ratio(tp, tp + fn)


def accuracy(predicted, true):
    return (predicted == true).double().mean()


def a_loss(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return 1 - ratio(2 * tp, 2 * tp + fp + fn)


def percent(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return 100 * ratio(2 * tp, 2 * tp + fp + fn)


def background(predicted, true):
    _, fp, fn, tn = parts(predicted, true)
    return ratio(2 * tn, 2 * tn + fp + fn)


def both_classes(predicted, true):
    tp, fp, fn, tn = parts(predicted, true)
    return (ratio(2 * tp, 2 * tp + fp + fn) + ratio(2 * tn, 2 * tn + fp + fn)) / 2


def counts_in_uint8(predicted, true):
    p, t = np.asarray(predicted).astype(np.uint8), np.asarray(true).astype(np.uint8)
    areas = int(np.sum(p, dtype=np.uint8)) + int(np.sum(t, dtype=np.uint8))
    return 2 * int((p & t).sum()) / areas if areas else 1.0


def smoothing_of_the_loss(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return (2 * tp + 1) / (2 * tp + fp + fn + 1)


def zero_over_zero(predicted, true):
    p, t = predicted.bool(), true.bool()
    return 2 * (p & t).sum() / (p.sum() + t.sum())


def division_by_zero(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return 2 * tp / (2 * tp + fp + fn)


def empties_score_zero(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return 2 * tp / max(2 * tp + fp + fn, 1)


def empty_truth_is_perfect(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return 2 * tp / (2 * tp + fp + fn) if tp + fn else 1.0


def one_number_a_row(predicted, true):
    p, t = predicted.bool(), true.bool()
    return 2 * (p & t).sum(-1) / (p.sum(-1) + t.sum(-1)).clamp(min=1)


def prints(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    ratio(2 * tp, 2 * tp + fp + fn)


def hole(predicted, true):
    raise NotImplementedError("your code here")


WRONG = {
    "That is IoU: Dice divides by the sum of the two areas": iou,
    "factor 2 above the fraction is missing": without_factor_two,
    "uint8 masks. The denominator is the union": over_the_union,
    r"bool masks. .*Between bool masks \+ means": plus_means_or_between_bool,
    "That is the precision": precision,
    "That is the recall": recall,
    "That is the accuracy": accuracy,
    "one minus the score, a loss": a_loss,
    "Those are percent": percent,
    "That is the Dice of the background": background,
    "the mean of the Dice of nuclei and that of background": both_classes,
    "right for small masks, but 300 common pixels": counts_in_uint8,
    "a smoothing constant belongs in a loss": smoothing_of_the_loss,
    "two empty masks: nan came out, from 0 / 0": zero_over_zero,
    "two empty masks: a division by zero": division_by_zero,
    "both masks are empty: .* but 0 came out": empties_score_zero,
    "where the truth is empty must score 0, but 1.0000": empty_truth_is_perfect,
    r"one number is wanted, a Tensor of shape \(4,\)": one_number_a_row,
    "it returns nothing: return the score": prints,
    "hole is not written yet": hole,
}
