import numpy as np
import torch

from course_lib.checks import check_iou

CHECK, LESSON, EXERCISE = check_iou, "01_images_and_scores", "iou"


def parts(predicted, true):
    p, t = predicted.bool(), true.bool()
    return (p & t).sum().item(), (p & ~t).sum().item(), (~p & t).sum().item(), (~p & ~t).sum().item()


def ratio(part, whole):
    return part / whole if whole else 1.0


def dice(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return ratio(2 * tp, 2 * tp + fp + fn)


def areas_added(predicted, true):
    both = predicted.bool() & true.bool()
    return ratio(both.sum().item(), predicted.sum().item() + true.sum().item())


def factor_two(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return ratio(2 * tp, tp + fp + fn)


def wrong_pixels_alone(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return ratio(tp, fp + fn)


def precision(predicted, true):
    tp, fp, _, _ = parts(predicted, true)
    return ratio(tp, tp + fp)


def recall(predicted, true):
    tp, _, fn, _ = parts(predicted, true)
    return ratio(tp, tp + fn)


def accuracy(predicted, true):
    return (predicted == true).float().mean().item()


def areas_compared(predicted, true):
    return ratio(true.sum().item(), predicted.sum().item())


def a_loss(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return 1 - ratio(tp, tp + fp + fn)


def percent(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return 100 * ratio(tp, tp + fp + fn)


def upside_down(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return ratio(tp + fp + fn, tp)


def over_all_pixels(predicted, true):
    return (predicted.bool() & true.bool()).float().mean()


def background(predicted, true):
    _, fp, fn, tn = parts(predicted, true)
    return ratio(tn, tn + fp + fn)


def both_classes(predicted, true):
    tp, fp, fn, tn = parts(predicted, true)
    return (ratio(tp, tp + fp + fn) + ratio(tn, tn + fp + fn)) / 2


def a_count(predicted, true):
    return parts(predicted, true)[0]


def whole_division(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return tp // (tp + fp + fn) if tp + fp + fn else 1


def rounded(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return round(ratio(tp, tp + fp + fn), 3)


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


def zero_division(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return tp / (tp + fp + fn)


def zero_over_zero(predicted, true):
    p, t = predicted.bool(), true.bool()
    return ((p & t).sum() / (p | t).sum()).item()


def empties_score_zero(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return tp / (tp + fp + fn) if tp else 0.0


def small_constant_below(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return tp / (tp + fp + fn + 1e-8)


def smoothing_of_one(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return (tp + 1) / (tp + fp + fn + 1)


def smoothing_of_the_popular_code(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return (tp + 1e-5) / (tp + fp + fn + 1e-5)


def constant_below(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return tp / (tp + fp + fn + 1) if tp + fp + fn else 1.0


def empty_truth_is_perfect(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return tp / (tp + fp + fn) if tp + fn else 1.0


def empty_prediction_is_perfect(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return tp / (tp + fp + fn) if tp + fp else 1.0


def nothing_in_common_is_perfect(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return tp / (tp + fp + fn) if tp else 1.0


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


def returns_nothing(predicted, true):
    parts(predicted, true)


def a_pair(predicted, true):
    tp, fp, fn, _ = parts(predicted, true)
    return tp, tp + fp + fn


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
