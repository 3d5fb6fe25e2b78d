import torch

from course_lib.checks import check_accurate_mode

CHECK, LESSON, EXERCISE = check_accurate_mode, "07_deep_supervision", "accurate_mode"


def maps(outputs):
    return torch.stack(outputs).sigmoid()


def mean_of_logits(outputs):
    return torch.stack(outputs).mean(0).sigmoid()


def without_sigmoid(outputs):
    return torch.stack(outputs).mean(0)


def last(outputs):
    return outputs[-1].sigmoid()


def first(outputs):
    return outputs[0].sigmoid()


def summed(outputs):
    return maps(outputs).sum(0)


def vote(outputs):
    return (maps(outputs) > 0.5).float().mean(0)


def mask(outputs):
    return maps(outputs).mean(0) > 0.5


def median(outputs):
    return maps(outputs).median(0).values


def highest(outputs):
    return maps(outputs).amax(0)


def softmax_over_heads(outputs):
    return torch.stack(outputs).softmax(0).mean(0)


def softmax_over_classes(outputs):
    return torch.stack(outputs).softmax(2).mean(0)


def mean_over_everything(outputs):
    return maps(outputs).mean()


def mean_over_images(outputs):
    return maps(outputs).mean(1)


def along_the_channels(outputs):
    return torch.cat(outputs, dim=1).sigmoid().mean(1, keepdim=True)


def always_four(outputs):
    return sum(logits.sigmoid() for logits in outputs) / 4


def in_place(outputs):
    return torch.stack([logits.sigmoid_() for logits in outputs]).mean(0)


def a_list(outputs):
    return [logits.sigmoid() for logits in outputs]


def hole(outputs):
    raise NotImplementedError("your code here")


WRONG = {
    "the logits are averaged before the sigmoid": mean_of_logits,
    "averaged and no sigmoid follows": without_sigmoid,
    "only the deepest head is used": last,
    "only the first head in the list is used": first,
    "the maps are added up": summed,
    "masks are averaged": vote,
    "a mask came out": mask,
    "the median came out": median,
    "the highest probability came out": highest,
    "makes the heads compete": softmax_over_heads,
    "a softmax over the classes": softmax_over_classes,
    r"not \(\): average over the heads alone": mean_over_everything,
    r"\(2, 2, 4, 6\), not \(4, 2, 4, 6\)": mean_over_images,
    r"not \(2, 1, 4, 6\)": along_the_channels,
    "with two heads it is wrong": always_four,
    "the logits themselves were changed": in_place,
    "a tensor is wanted, this is list": a_list,
    "hole is not written yet": hole,
}
