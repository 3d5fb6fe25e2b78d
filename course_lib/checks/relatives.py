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
    given = f.clone()
    found = fn(f, g, W_f, W_g, W_psi)
    assert found is not None, "it returns nothing: return what passes of f"
    assert torch.equal(f, given), "f itself has changed: make a new tensor"
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


@as_check
def check_at_row(fn: Callable[[Tensor, int, int], Tensor]) -> None:
    """`fn(x, k, i)`: a map of row k at the size of row i, maxima going down, bilinear with aligned corners going up."""
    x = torch.randn(2, 3, 8, 16)
    same = fn(x, 2, 2)
    assert same is not None, "it returns nothing where k is i: return the map as it is"
    assert torch.equal(same, x), "where k is i the map is of the right size already: return it as it is"
    down, up = fn(x, 0, 2), fn(x, 2, 0)
    assert down is not None and up is not None, "it returns nothing for some rows: there are three cases"
    assert not (down.shape[2:] == (32, 64) and up.shape[2:] == (2, 4)), "up and down are swapped: row 0 is the largest"
    assert down.shape[2:] != (4, 8), "two rows down is a quarter of the side, not a half: 2 ** (i - k)"
    assert down.shape == (2, 3, 2, 4), f"row 0 at row 2 has shape {tuple(down.shape)}, expected (2, 3, 2, 4)"
    assert up.shape[2:] != (16, 32), "two rows up is four times the side, not twice: 2 ** (k - i)"
    assert up.shape == (2, 3, 32, 64), f"row 2 at row 0 has shape {tuple(up.shape)}, expected (2, 3, 32, 64)"
    assert not torch.allclose(down, F.avg_pool2d(x, 4)), "going down takes the maximum, not the mean"
    assert not torch.equal(down, x[:, :, ::4, ::4]), "going down takes the maximum of the pixels, not every fourth"
    assert torch.equal(down, F.max_pool2d(x, 4)), "going down is not the maximum over 2^(i-k) by 2^(i-k) pixels"
    assert not torch.allclose(up, F.interpolate(x, scale_factor=4.0)), "going up is bilinear, not the nearest pixel"
    assert not torch.allclose(up, F.interpolate(x, scale_factor=4.0, mode="bilinear"), atol=1e-6), (
        "corners are not aligned: align_corners=True, as in the grid"
    )
    wanted = F.interpolate(x, scale_factor=4.0, mode="bilinear", align_corners=True)
    assert torch.allclose(up, wanted, atol=1e-5), "going up is not bilinear with aligned corners"
