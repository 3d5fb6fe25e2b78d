"""Lesson 11: the attention gate, and maps of all scales at the size of one row."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checks.machinery import as_check


@as_check
def check_gate(fn: Callable[..., Tensor]) -> None:
    """`fn(f, g, W_f, W_g, W_psi) -> alpha * f`, alpha = sigmoid(W_psi(relu(W_g(g) + W_f(f))))."""
    W_f, W_g, W_psi = nn.Conv2d(4, 3, 1), nn.Conv2d(6, 3, 1), nn.Conv2d(3, 1, 1)
    f, g = torch.randn(2, 4, 5, 7), torch.randn(2, 6, 5, 7)
    given_f, given_g = f.clone(), g.clone()
    found = fn(f, g, W_f, W_g, W_psi)
    assert found is not None, "it returns nothing: return what passes of f"
    assert isinstance(found, Tensor), f"one tensor is wanted, what passes of f: this is {type(found).__name__}"
    assert torch.equal(f, given_f), "f itself has changed: make a new tensor"
    assert torch.equal(g, given_g), "g itself has changed: make a new tensor"
    assert found.shape != (2, 1, 5, 7), "that is alpha, or one channel: return alpha times f, in all its channels"
    assert found.shape == f.shape, f"it has shape {tuple(found.shape)}, and what passes of f has {tuple(f.shape)}"
    asked = W_g(g) + W_f(f)

    def is_(wanted: Tensor) -> bool:
        return bool(torch.allclose(found, wanted, atol=1e-6))

    assert not is_(f * torch.sigmoid(W_psi(asked))), "the ReLU between the layers is missing"
    assert not is_(f * W_psi(F.relu(asked))), "the sigmoid is missing: alpha lies between 0 and 1"
    assert not is_(f * torch.sigmoid(W_psi(F.relu(W_f(f))))), "g has no say: add W_g(g) before the ReLU"
    assert not is_(f * torch.sigmoid(W_psi(F.relu(W_g(g))))), "f has no say in alpha: add W_f(f) before the ReLU"
    alpha = torch.sigmoid(W_psi(F.relu(asked)))
    assert not is_(f + alpha), "alpha is added: it multiplies f"
    assert not is_((1 - alpha) * f), "the gate is the wrong way round: where alpha is 1, f passes"
    assert not is_(f * torch.sigmoid(W_psi(F.relu(W_g(g)) + F.relu(W_f(f))))), "add first, then one ReLU of the sum"
    assert is_(alpha * f), "that is not sigmoid(W_psi(relu(W_g(g) + W_f(f)))) times f"
    f, g = f.requires_grad_(), g.requires_grad_()
    learns = [f, g, W_f.weight, W_g.weight, W_psi.weight]
    wanted = torch.autograd.grad((torch.sigmoid(W_psi(F.relu(W_g(g) + W_f(f)))) * f).sum(), learns)
    found = fn(f, g, W_f, W_g, W_psi)
    slopes = torch.autograd.grad(found.sum(), learns, allow_unused=True) if found.requires_grad else [None]
    true = [a is not None and torch.allclose(a, b, atol=1e-4) for a, b in zip(slopes, wanted, strict=False)]
    assert all(true), (
        "the values are right, the gradients are not: is alpha or f detached, or made under no_grad? A gate must learn"
    )


@as_check
def check_at_row(fn: Callable[[Tensor, int, int], Tensor]) -> None:
    """`fn(x, k, i)`: a map of row k at the size of row i, maxima going down, bilinear with aligned corners going up."""
    x = torch.randn(2, 3, 16, 24)
    same, down, up = fn(x, 2, 2), fn(x, 0, 2), fn(x, 2, 0)
    assert same is not None, "it returns nothing where k is i: return the map as it is"
    assert down is not None and up is not None, "it returns nothing for some rows: there are three cases"
    assert all(isinstance(y, Tensor) for y in (same, down, up)), "a tensor is wanted: the map at its new size"
    assert torch.equal(same, x), "where k is i the map is of the right size already: return it as it is"
    assert not (down.shape[2:] == (64, 96) and up.shape[2:] == (4, 6)), "up and down are swapped: row 0 is the largest"
    assert down.shape[2:] != (8, 12), "two rows down is a quarter of the side, not a half: 2 ** (i - k)"
    assert down.shape == (2, 3, 4, 6), f"row 0 at row 2 has shape {tuple(down.shape)}, expected (2, 3, 4, 6)"
    assert up.shape[2:] != (32, 48), "two rows up is four times the side, not twice: 2 ** (k - i)"
    assert up.shape == (2, 3, 64, 96), f"row 2 at row 0 has shape {tuple(up.shape)}, expected (2, 3, 64, 96)"
    assert not torch.allclose(down, F.avg_pool2d(x, 4)), "going down takes the maximum, not the mean"
    assert not torch.equal(down, x[:, :, ::4, ::4]), "going down takes the maximum of the pixels, not every fourth"
    assert torch.equal(down, F.max_pool2d(x, 4)), "going down is not the maximum over 2^(i-k) by 2^(i-k) pixels"
    assert not torch.allclose(up, F.interpolate(x, scale_factor=4.0)), "going up is bilinear, not the nearest pixel"
    assert not torch.allclose(up, F.interpolate(x, scale_factor=4.0, mode="bilinear"), atol=1e-6), (
        "corners are not aligned: align_corners=True, as in the grid"
    )
    assert not torch.allclose(up, _doubled(_doubled(x)), atol=1e-6), (
        "doubling twice is not one step of four: interpolate once, with scale_factor=2 ** (k - i)"
    )
    for n in (1, 2, 3):
        for k, i in ((0, n), (1, n + 1)):
            down, up = fn(x, k, i), fn(x, i, k)
            assert torch.equal(down, F.max_pool2d(x, 2**n)), (
                f"row {k} at row {i}: every row halves once more, so the step is 2 ** (i - k) = {2**n} and depends on "
                "nothing but how far the rows are apart"
            )
            wanted = F.interpolate(x, scale_factor=2.0**n, mode="bilinear", align_corners=True)
            assert up.shape == wanted.shape, (
                f"row {i} at row {k}: every row doubles once more, so the step is 2 ** (k - i) = {2**n} and depends on "
                "nothing but how far the rows are apart"
            )
            assert torch.allclose(up, wanted, atol=1e-5), "going up is not bilinear with aligned corners"
    x = x.requires_grad_()
    assert fn(x, 0, 2).requires_grad and fn(x, 2, 0).requires_grad and fn(x, 1, 1).requires_grad, (
        "no gradient reaches the map that came in: is it detached, or read under no_grad?"
    )


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
