import torch

from course_lib.checks import check_to_mask

CHECK, LESSON, EXERCISE = check_to_mask, "00_start_here", "to_mask"


def threshold_on_logits(logits):
    return logits > 0.5


def probabilities(logits):
    return logits.sigmoid()


def zeros_and_ones(logits):
    return (logits.sigmoid() > 0.5).float()


def softmax_of_one_channel(logits):
    return logits.softmax(dim=1) > 0.5


def swapped(logits):
    return logits.sigmoid() < 0.5


def in_numpy(logits):
    return logits.sigmoid().numpy() > 0.5


def without_channel(logits):
    return logits.sigmoid()[:, 0] > 0.5


def threshold_of_the_mean(logits):
    return logits > logits.mean()  # 0.09: takes the logits above it, not those above 0


def argmax(logits):
    return logits.argmax(dim=1, keepdim=True).bool()


def at_least_one_half(logits):
    return logits.sigmoid() >= 0.5


def in_place(logits):
    return logits.sigmoid_() > 0.5


def first_image_only(logits):
    return logits[:1].sigmoid() > 0.5


def hole(logits):
    raise NotImplementedError("your code here")


def crash(logits):
    return torch.sigmoid(logits, threshold=0.5)


WRONG = {
    "these are logits: put them through a sigmoid": threshold_on_logits,
    "its type is bool, not torch.float32: compare": probabilities,
    "its type is bool, not torch.float32:": zeros_and_ones,
    "perhaps a softmax, which over one channel is always 1": softmax_of_one_channel,
    "an argmax over one channel is always 0": argmax,
    "exactly one half is not above it": at_least_one_half,
    "the logits themselves were changed": in_place,
    "nucleus and background are swapped": swapped,
    "a tensor is wanted, this is ndarray": in_numpy,
    r"the shape changed from \(2, 1, 2, 2\) to \(2, 2, 2\)": without_channel,
    r"to \(1, 1, 2, 2\)": first_image_only,
    r"logits \[-4.0, .*\] became \[0, 0, 0, 0, 1, 1, 1, 0\]": threshold_of_the_mean,
    "hole is not written yet": hole,
    "crash stops with TypeError": crash,
}
