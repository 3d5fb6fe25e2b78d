import numpy as np
import torch

from course_lib.checks import check_iou

CHECK, LESSON, EXERCISE = check_iou, "01_images_and_scores", "iou"


def parts(predicted, true):
    p, t = predicted.bool(), true.bool()
    return (p & t).sum().item(), (p & ~t).sum().item(), (~p & t).sum().item(), (~p & ~t).sum().item()


def ratio(part, whole):
    return part / whole if whole else 1.0


def named(name, answer):
    answer.__name__ = name
    return answer


def of_counts(name, score):
    """score takes the numbers of true and false positives, of false and true negatives."""
    return named(name, lambda predicted, true: score(*parts(predicted, true)))


dice = of_counts("dice", lambda tp, fp, fn, tn: ratio(2 * tp, 2 * tp + fp + fn))
areas_added = of_counts("areas_added", lambda tp, fp, fn, tn: ratio(tp, 2 * tp + fp + fn))
factor_two = of_counts("factor_two", lambda tp, fp, fn, tn: ratio(2 * tp, tp + fp + fn))
wrong_pixels_alone = of_counts("wrong_pixels_alone", lambda tp, fp, fn, tn: ratio(tp, fp + fn))
precision = of_counts("precision", lambda tp, fp, fn, tn: ratio(tp, tp + fp))
recall = of_counts("recall", lambda tp, fp, fn, tn: ratio(tp, tp + fn))
accuracy = named("accuracy", lambda predicted, true: (predicted == true).float().mean().item())
areas_compared = named("areas_compared", lambda predicted, true: ratio(true.sum().item(), predicted.sum().item()))
a_loss = of_counts("a_loss", lambda tp, fp, fn, tn: 1 - ratio(tp, tp + fp + fn))
percent = of_counts("percent", lambda tp, fp, fn, tn: 100 * ratio(tp, tp + fp + fn))
upside_down = of_counts("upside_down", lambda tp, fp, fn, tn: ratio(tp + fp + fn, tp))
over_all_pixels = named("over_all_pixels", lambda predicted, true: (predicted.bool() & true.bool()).float().mean())
background = of_counts("background", lambda tp, fp, fn, tn: ratio(tn, tn + fp + fn))
both_classes = of_counts("both_classes", lambda tp, fp, fn, tn: (ratio(tp, tp + fp + fn) + ratio(tn, tn + fp + fn)) / 2)
a_count = of_counts("a_count", lambda tp, fp, fn, tn: tp)
a_pair = of_counts("a_pair", lambda tp, fp, fn, tn: (tp, tp + fp + fn))
returns_nothing = of_counts("returns_nothing", lambda tp, fp, fn, tn: None)
whole_division = of_counts("whole_division", lambda tp, fp, fn, tn: tp // (tp + fp + fn) if tp + fp + fn else 1)
rounded = of_counts("rounded", lambda tp, fp, fn, tn: round(ratio(tp, tp + fp + fn), 3))

zero_division = of_counts("zero_division", lambda tp, fp, fn, tn: tp / (tp + fp + fn))
empties_score_zero = of_counts("empties_score_zero", lambda tp, fp, fn, tn: tp / (tp + fp + fn) if tp else 0.0)
small_constant_below = of_counts("small_constant_below", lambda tp, fp, fn, tn: tp / (tp + fp + fn + 1e-8))
smoothing_of_one = of_counts("smoothing_of_one", lambda tp, fp, fn, tn: (tp + 1) / (tp + fp + fn + 1))
smoothing_of_the_popular_code = of_counts(
    "smoothing_of_the_popular_code", lambda tp, fp, fn, tn: (tp + 1e-5) / (tp + fp + fn + 1e-5)
)
constant_below = of_counts("constant_below", lambda tp, fp, fn, tn: tp / (tp + fp + fn + 1) if tp + fp + fn else 1.0)
empty_truth_is_perfect = of_counts(
    "empty_truth_is_perfect", lambda tp, fp, fn, tn: tp / (tp + fp + fn) if tp + fn else 1.0
)
empty_prediction_is_perfect = of_counts(
    "empty_prediction_is_perfect", lambda tp, fp, fn, tn: tp / (tp + fp + fn) if tp + fp else 1.0
)
nothing_in_common_is_perfect = of_counts(
    "nothing_in_common_is_perfect", lambda tp, fp, fn, tn: tp / (tp + fp + fn) if tp else 1.0
)


def subtracts_uint8(predicted, true):
    both = (predicted & true).sum()
    return (both / (both + (predicted - true).abs().sum())).item()


def counts_in_uint8(predicted, true):
    p, t = np.asarray(predicted), np.asarray(true)
    both, either = np.sum(p & t, dtype=np.uint8), np.sum(p | t, dtype=np.uint8)
    return 1.0 if either == 0 else float(both) / float(either)


def subtracts_bool(predicted, true):
    both = (predicted * true).sum().item()
    if predicted.dtype == torch.uint8:
        predicted = predicted.short()
    return ratio(both, both + (predicted - true).abs().sum().item())


def plus_means_or_only_for_bool(predicted, true):
    """The union of bool masks, but 1 + 1 = 2 for uint8."""
    return ratio((predicted & true).sum().item(), (predicted + true).sum().item())


def bitwise_floats(predicted, true):
    p, t = predicted.float(), true.float()
    return ratio((p * t).sum().item(), (p | t).sum().item())


def zero_over_zero(predicted, true):
    p, t = predicted.bool(), true.bool()
    return ((p & t).sum() / (p | t).sum()).item()


def one_number_a_row(predicted, true):
    p, t = predicted.bool(), true.bool()
    return (p & t).sum(-1) / (p | t).sum(-1).clamp(min=1)


def in_place(predicted, true):
    union = (predicted | true).sum().item()
    predicted &= true
    return ratio(predicted.sum().item(), union)


def with_gradient(predicted, true):
    p, t = predicted.float().requires_grad_(), true.float()
    both = (p * t).sum()
    return both / (p.sum() + t.sum() - both)


def hole(predicted, true):
    raise NotImplementedError("your code here")


WRONG = {
    "That is Dice: IoU divides by the union": dice,
    r"0.3125 .* uint8 masks\. The denominator adds the two areas": areas_added,
    "The 2 belongs to Dice": factor_two,
    "holds wrong pixels alone": wrong_pixels_alone,
    "That is the precision": precision,
    "That is the recall": recall,
    "That is the accuracy": accuracy,
    "Only the areas are compared": areas_compared,
    "one minus the score, a loss": a_loss,
    "Those are percent": percent,
    "The fraction is upside down": upside_down,
    "every pixel of the image, background too": over_all_pixels,
    "That is the IoU of the background": background,
    "the mean of the IoU of nuclei and that of background": both_classes,
    "That is a number of pixels: divide it": a_count,
    "cut off to a whole number": whole_division,
    "The score was rounded": rounded,
    "uint8 cannot go below zero": subtracts_uint8,
    "right for small masks, but 300 common pixels .* uint8 ends at 255": counts_in_uint8,
    "bool masks cannot be subtracted": subtracts_bool,
    r"The denominator adds the two areas": plus_means_or_only_for_bool,
    "turned into floats, which know no & and .: keep": bitwise_floats,
    "two empty masks: a division by zero": zero_division,
    "two empty masks: nan came out, from 0 / 0": zero_over_zero,
    "both masks are empty: .* but 0 came out": empties_score_zero,
    "both masks are empty: nothing is wrong, .* 1 by agreement, but 0 came": small_constant_below,
    "missed, scores 0.5 instead of 0: a smoothing constant": smoothing_of_one,
    "missed, scores 1e-05 instead of 0: a smoothing constant": smoothing_of_the_popular_code,
    "scores 0.5 instead of 1: something was added below": constant_below,
    "where the truth is empty must score 0, but 1.0000": empty_truth_is_perfect,
    "an empty prediction of 5 true pixels must score 0, but 1.0000": empty_prediction_is_perfect,
    "two masks that share no pixel must score 0, but 1.0000": nothing_in_common_is_perfect,
    r"one number is wanted, a Tensor of shape \(4,\) came out": one_number_a_row,
    "the masks themselves were changed": in_place,
    "the score carries a gradient": with_gradient,
    "it returns nothing: return the score": returns_nothing,
    "one number is wanted, a tuple came out": a_pair,
    "hole is not written yet": hole,
}
