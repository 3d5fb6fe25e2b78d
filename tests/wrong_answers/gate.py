import torch
import torch.nn.functional as F

from course_lib.checks import check_gate

CHECK, LESSON, EXERCISE = check_gate, "11_relatives", "gate"


def alpha_of(f, g, W_f, W_g, W_psi):
    return torch.sigmoid(W_psi(F.relu(W_g(g) + W_f(f))))


def no_relu(f, g, W_f, W_g, W_psi):
    return f * torch.sigmoid(W_psi(W_g(g) + W_f(f)))


def no_sigmoid(f, g, W_f, W_g, W_psi):
    return f * W_psi(F.relu(W_g(g) + W_f(f)))


def without_g(f, g, W_f, W_g, W_psi):
    return f * torch.sigmoid(W_psi(F.relu(W_f(f))))


def without_f(f, g, W_f, W_g, W_psi):
    return f * torch.sigmoid(W_psi(F.relu(W_g(g))))


def added(*given):
    return given[0] + alpha_of(*given)


def closed(*given):
    return (1 - alpha_of(*given)) * given[0]


def two_relus(f, g, W_f, W_g, W_psi):
    return f * torch.sigmoid(W_psi(F.relu(W_g(g)) + F.relu(W_f(f))))


def in_place(f, g, W_f, W_g, W_psi):
    f *= alpha_of(f, g, W_f, W_g, W_psi).detach()
    return f


def changes_g(f, g, W_f, W_g, W_psi):
    g += 1
    return alpha_of(f, g, W_f, W_g, W_psi) * f


def alpha_detached(*given):
    return alpha_of(*given).detach() * given[0]


def skip_detached(*given):
    return alpha_of(*given) * given[0].detach()


def signal_detached(f, g, W_f, W_g, W_psi):
    return alpha_of(f, g.detach(), W_f, W_g, W_psi) * f


def without_gradient(*given):
    with torch.no_grad():
        alpha = alpha_of(*given)
    return alpha * given[0]


def alpha_as_well(*given):
    return alpha_of(*given) * given[0], alpha_of(*given)


def hole(f, g, W_f, W_g, W_psi):
    raise NotImplementedError("your code here")


WRONG = {
    "the ReLU between": no_relu,
    "the sigmoid is missing": no_sigmoid,
    "g has no say": without_g,
    "f has no say": without_f,
    "alpha is added": added,
    "the wrong way round": closed,
    "add first, then one ReLU": two_relus,
    "that is alpha": alpha_of,
    "f itself has changed": in_place,
    "g itself has changed": changes_g,
    "is alpha or f detached": alpha_detached,
    "alpha or f detached": skip_detached,
    "the gradients are not": signal_detached,
    "made under no_grad": without_gradient,
    "this is tuple": alpha_as_well,
    "it returns nothing": lambda *given: None,
    "hole is not written yet": hole,
}
