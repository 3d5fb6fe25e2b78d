import torch

from course_lib.checks import check_fold

CHECK, LESSON, EXERCISE = check_fold, "09_fast_on_a_gpu", "fold"


def scale_of(norm):
    return norm.weight / (norm.running_var + norm.eps).sqrt()


def weight_of(conv, scale):
    return conv.weight * scale[:, None, None, None]


def bias_of(conv, norm):
    return (conv.bias - norm.running_mean) * scale_of(norm) + norm.bias


def no_eps(conv, norm):
    return weight_of(conv, norm.weight / norm.running_var.sqrt()), bias_of(conv, norm)


def variance(conv, norm):
    return weight_of(conv, norm.weight / (norm.running_var + norm.eps)), bias_of(conv, norm)


def no_gamma(conv, norm):
    return weight_of(conv, 1 / (norm.running_var + norm.eps).sqrt()), bias_of(conv, norm)


def input_channels(conv, norm):
    return conv.weight * scale_of(norm)[None, :3, None, None], bias_of(conv, norm)


def last_index(conv, norm):
    return conv.weight * scale_of(norm)[:3], bias_of(conv, norm)


def weight_unchanged(conv, norm):
    return conv.weight, bias_of(conv, norm)


def no_mean(conv, norm):
    return weight_of(conv, scale_of(norm)), conv.bias * scale_of(norm) + norm.bias


def no_conv_bias(conv, norm):
    return weight_of(conv, scale_of(norm)), norm.bias - norm.running_mean * scale_of(norm)


def no_beta(conv, norm):
    return weight_of(conv, scale_of(norm)), (conv.bias - norm.running_mean) * scale_of(norm)


def conv_bias_not_scaled(conv, norm):
    return weight_of(conv, scale_of(norm)), conv.bias - norm.running_mean * scale_of(norm) + norm.bias


def mean_added(conv, norm):
    return weight_of(conv, scale_of(norm)), (conv.bias + norm.running_mean) * scale_of(norm) + norm.bias


def beta_scaled(conv, norm):
    return weight_of(conv, scale_of(norm)), (conv.bias - norm.running_mean + norm.bias) * scale_of(norm)


def in_place(conv, norm):
    with torch.no_grad():
        conv.weight *= scale_of(norm)[:, None, None, None]
    return conv.weight, bias_of(conv, norm)


def weight_only(conv, norm):
    return weight_of(conv, scale_of(norm))


def nothing(conv, norm):
    weight_of(conv, scale_of(norm))


def hole(conv, norm):
    raise NotImplementedError("your code here")


WRONG = {
    "eps is missing": no_eps,
    "the root of the variance": variance,
    "gamma": no_gamma,
    "belongs to output channels": input_channels,
    "the weight is not conv.weight|stops with": last_index,
    "the weight is as before": weight_unchanged,
    "the running mean is missing": no_mean,
    "own bias is missing": no_conv_bias,
    "beta .* is missing": no_beta,
    "conv.bias is not scaled": conv_bias_not_scaled,
    "the running mean is added": mean_added,
    "beta is scaled": beta_scaled,
    "have changed": in_place,
    "two tensors are wanted": weight_only,
    "it returns nothing": nothing,
    "hole is not written yet": hole,
}
