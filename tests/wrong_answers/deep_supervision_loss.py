import torch
import torch.nn.functional as F

from course_lib.checks import check_deep_supervision_loss
from course_lib.losses import bce_dice

CHECK, LESSON, EXERCISE = check_deep_supervision_loss, "07_deep_supervision", "deep_supervision_loss"


def each(outputs, target):
    return torch.stack([bce_dice(logits, target) for logits in outputs])


def summed(outputs, target):
    return each(outputs, target).sum()


def last_only(outputs, target):
    return bce_dice(outputs[-1], target)


def first_only(outputs, target):
    """The official PyTorch code: weights[0] * loss(x[-1], ...), where x[-1] is the shallowest head."""
    return bce_dice(outputs[0], target)


def without_the_last(outputs, target):
    return each(outputs[:-1], target).mean()


def without_the_first(outputs, target):
    return each(outputs[1:], target).mean()


def worst(outputs, target):
    return each(outputs, target).max()


def of_the_mean_of_logits(outputs, target):
    return bce_dice(torch.stack(outputs).mean(0), target)


def of_the_mean_of_maps(outputs, target):
    return bce_dice(torch.stack(outputs).sigmoid().mean(0).logit(), target)


def sigmoid_twice(outputs, target):
    return each([logits.sigmoid() for logits in outputs], target).mean()


def swapped(outputs, target):
    return torch.stack([bce_dice(target, logits) for logits in outputs]).mean()


def cross_entropy(outputs, target):
    return torch.stack([F.binary_cross_entropy_with_logits(logits, target) for logits in outputs]).mean()


def a_number(outputs, target):
    return each(outputs, target).mean().item()


def a_list(outputs, target):
    return each(outputs, target)


def detached_but_the_last(outputs, target):
    return each([*(logits.detach() for logits in outputs[:-1]), outputs[-1]], target).mean()


def detached(outputs, target):
    return each(outputs, target).mean().detach()


def always_three(outputs, target):
    return sum(bce_dice(logits, target) for logits in outputs) / 3


def weighted_by_depth(outputs, target):
    weights = torch.arange(1, len(outputs) + 1) / sum(range(1, len(outputs) + 1))
    return (weights * each(outputs, target)).sum()


def forgets_to_return(outputs, target):
    each(outputs, target).mean()


def hole(outputs, target):
    raise NotImplementedError("your code here")


WRONG = {
    "the heads are added up": summed,
    "only the deepest head is trained": last_only,
    "only the first head in the list is trained": first_only,
    "the deepest head is left out": without_the_last,
    "the first head in the list is left out": without_the_first,
    "the worst head alone counts": worst,
    "the logits are averaged first": of_the_mean_of_logits,
    "the probability maps are averaged first": of_the_mean_of_maps,
    "applies the sigmoid itself": sigmoid_twice,
    "the logits first, then the target": swapped,
    "cross entropy alone": cross_entropy,
    "a tensor is wanted, whose backward": a_number,
    r"this has shape \(3,\): average over the heads": a_list,
    "no gradient reaches head 1": detached_but_the_last,
    "no path back to the logits": detached,
    "with a single head it is wrong": always_three,
    "the heads' losses are .* their mean": weighted_by_depth,
    "it returns nothing": forgets_to_return,
    "hole is not written yet": hole,
}
