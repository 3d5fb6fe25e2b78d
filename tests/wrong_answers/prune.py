import copy

import torch
from torch import nn

from course_lib.checks import check_prune
from course_lib.grid import NestedUNet

CHECK, LESSON, EXERCISE = check_prune, "08_pruning", "prune"


def shallower(net, level):
    return NestedUNet(**{**net.config, "widths": net.config["widths"][: level + 1]})


def weights_that_stay(net, small):
    return {name: net.state_dict()[name] for name in small.state_dict()}


def as_it_was(net, level):
    return net


def a_copy(net, level):
    return copy.deepcopy(net)


class FirstHeads(nn.Module):
    """Computes everything and then shows less."""

    def __init__(self, net, level):
        super().__init__()
        self.net, self.level = net, level

    def forward(self, image):
        return self.net(image)[: self.level]


def hides_heads(net, level):
    return FirstHeads(copy.deepcopy(net), level)


def without_weights(net, level):
    return shallower(net, level)


def parameters_alone(net, level):
    small, theirs = shallower(net, level), dict(net.named_parameters())
    for name, value in small.named_parameters():
        value.data.copy_(theirs[name].data)
    return small


def one_level_too_deep(net, level):
    return net.prune(min(level + 1, net.depth))


def one_level_short(net, level):
    return net.prune(max(level - 1, 1))


def shared_weights(net, level):
    small = shallower(net, level)
    small.load_state_dict(weights_that_stay(net, small), assign=True)
    return small


def last_head_alone(net, level):
    small = net.prune(level)
    small.heads = {f"final{level}": level}
    for head in range(1, level):
        delattr(small, f"final{head}")
    return small


def in_place(net, level):
    for i, j in list(net.nodes):
        if i + j > level:
            net.nodes.remove((i, j))
            delattr(net, f"conv{i}_{j}")
    for name, j in list(net.heads.items()):
        if j > level:
            del net.heads[name]
            delattr(net, name)
    return net


def encoder_alone(net, level):
    small = shallower(net, level)
    kept = {name: value for name, value in weights_that_stay(net, small).items() if "_0." in name}
    small.load_state_dict(kept, strict=False)
    return small


def trained_a_little(net, level):
    small = net.prune(level)
    with torch.no_grad():
        for value in small.parameters():
            value.mul_(1.001)
    return small


def logits_of_one_head(net, level):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net.prune(level)

        def forward(self, image):
            return self.net(image)[-1]

    return Last()


def names(net, level):
    return [name for name in net.state_dict() if name.startswith("conv")]


def hole(net, level):
    raise NotImplementedError("your code here")


WRONG = {
    "the net comes back as it was": as_it_was,
    "level 1 has depth 1 and so 2 widths; this net has depth 3": a_copy,
    "level 1 still holds .* do not only skip their heads": hides_heads,
    "none of the trained weights is in the pruned net": without_weights,
    "the running means of batch norm are not": parameters_alone,
    "this net has depth 2": one_level_too_deep,
    "level 2 has depth 2 .* this net has depth 1": one_level_short,
    "both nets hold the same tensors": shared_weights,
    "2 logits, not 1": last_head_alone,
    "the net that was given is changed itself": in_place,
    "some weights are not those of the net, such as conv0_1": encoder_alone,
    "none of the trained weights|some weights are not those": trained_a_little,
    "returns a list of logits, as the whole one does": logits_of_one_head,
    "a net is wanted, this is list": names,
    "hole is not written yet": hole,
}
