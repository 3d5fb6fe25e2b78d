import torch

from course_lib.checks import check_pooled_iou
from tests.wrong_answers.iou import areas_added, both_classes, dice, hole, named, of_counts, parts, percent, ratio

CHECK, LESSON, EXERCISE = check_pooled_iou, "01_images_and_scores", "pooled_iou"

iou = of_counts("iou", lambda tp, fp, fn, tn: ratio(tp, tp + fp + fn))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def mean_over_images(predicted, true):
    return mean(iou(p, t) for p, t in zip(predicted, true, strict=True))


def without_empty_images(predicted, true):
    pairs = [(p, t) for p, t in zip(predicted, true, strict=True) if p.any() or t.any()]
    return mean(iou(p, t) for p, t in pairs) if pairs else 1.0


def empty_images_score_zero(predicted, true):
    p, t = predicted.bool().flatten(1), true.bool().flatten(1)
    return ((p & t).sum(1) / (p | t).sum(1).clamp(min=1)).mean()


def nan_for_empty_images(predicted, true):
    p, t = predicted.bool().flatten(1), true.bool().flatten(1)
    return ((p & t).sum(1) / (p | t).sum(1)).mean()


def mean_of_pairs(predicted, true):
    return mean(iou(p, t) for p, t in zip(predicted.split(2), true.split(2), strict=True))


def running_mean_of_batches_of_16(predicted, true):
    """As the popular code: the IoU of each batch, weighted by its size."""
    total = sum(len(p) * iou(p, t) for p, t in zip(predicted.split(16), true.split(16), strict=True))
    return total / len(true)


def drops_the_last_batch(predicted, true):
    whole = len(true) // 16 * 16 or len(true)
    return iou(predicted[:whole], true[:whole])


def skips_empty_truth(predicted, true):
    kept = true.bool().flatten(1).any(1)
    return iou(predicted[kept], true[kept])


def skips_empty_predictions(predicted, true):
    kept = predicted.bool().flatten(1).any(1)
    return iou(predicted[kept], true[kept])


def off_by_one(predicted, true):
    return iou(predicted[:-1], true[:-1]) if len(true) > 1 else iou(predicted, true)


first_image = named("first_image", lambda predicted, true: iou(predicted[0], true[0]))
on_top_of_each_other = named("on_top_of_each_other", lambda predicted, true: iou(predicted.amax(0), true.amax(0)))
one_truth_for_all = named("one_truth_for_all", lambda predicted, true: iou(predicted, true[0].expand_as(predicted)))


def truth_without_channel(predicted, true):
    p, t = predicted.bool(), true[:, 0].bool()  # (N, 1, H, W) with (N, H, W) becomes (N, N, H, W)
    return ratio((p & t).sum().item(), (p | t).sum().item())


def mean_over_rows(predicted, true):
    p, t = predicted.bool(), true.bool()
    both, either = (p & t).sum(-1), (p | t).sum(-1)
    return torch.where(either > 0, both / either.clamp(min=1), 1.0).mean()


def one_number_an_image(predicted, true):
    return torch.tensor([iou(p, t) for p, t in zip(predicted, true, strict=True)])


median = named("median", lambda predicted, true: one_number_an_image(predicted, true).median())
accuracy = named("accuracy", lambda predicted, true: (predicted == true).double().mean())
smoothing = of_counts("smoothing", lambda tp, fp, fn, tn: (tp + 1e-5) / (tp + fp + fn + 1e-5))
all_empty_is_zero = of_counts("all_empty_is_zero", lambda tp, fp, fn, tn: tp / max(tp + fp + fn, 1))


def smoothing_of_each_image(predicted, true):
    counts = [parts(p, t)[:3] for p, t in zip(predicted, true, strict=True)]
    return sum(tp + 1 for tp, _, _ in counts) / sum(tp + fp + fn + 1 for tp, fp, fn in counts)


def all_empty_is_nan(predicted, true):
    p, t = predicted.bool(), true.bool()
    return (p & t).sum() / (p | t).sum()


WRONG = {
    "the mean over images, in which .* full one: sum the pixels": mean_over_images,
    "the mean over images, .* without the empty ones": without_empty_images,
    "the mean over images, .* with 0 for two empty masks": empty_images_score_zero,
    "nan came out; is there a division of 0 by 0": nan_for_empty_images,
    "a mean over batches of 2, which depends on size and order": mean_of_pairs,
    "37 images .* a mean over batches of 16, which depends on size": running_mean_of_batches_of_16,
    "37 images .* The last 5 images were left out, perhaps an incomplete batch": drops_the_last_batch,
    "Images whose truth is empty were left out": skips_empty_truth,
    "Images with an empty prediction were left out": skips_empty_predictions,
    "The last image was left out": off_by_one,
    "Only the first image was counted": first_image,
    "Broadcasting compares images with the truth of others": one_truth_for_all,
    "Broadcasting compares images .* must have the shape": truth_without_channel,
    "laid on top of each other": on_top_of_each_other,
    "That is a mean over rows of pixels": mean_over_rows,
    r"one number is wanted, a Tensor of shape \(6,\) came out": one_number_an_image,
    "That is Dice: IoU divides by the union": dice,
    "The denominator adds the two areas": areas_added,
    "That is the accuracy": accuracy,
    "the mean of the IoU of nuclei and that of background": both_classes,
    "Those are percent": percent,
    "missed, scores 1e-05 instead of 0: a smoothing constant": smoothing,
    "a smoothing constant belongs in a loss, not in a score": smoothing_of_each_image,
    "both masks are empty: .* but 0 came out": all_empty_is_zero,
    "two empty masks: nan came out, from 0 / 0": all_empty_is_nan,
    "That is the median over images": median,
    "hole is not written yet": hole,
}
