"""Lesson 03: down and up again, by hand along one row and in a net."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checks.machinery import as_check
from course_lib.checks.nets import assert_no_plain_lists, sizes_of_feature_maps
from course_lib.grid import VGGBlock


@as_check
def check_upsample_row(fn: Callable[[Tensor], Tensor]) -> None:
    """`fn(row) -> Tensor`: n >= 2 values to 2n, linear between neighbours, the outermost values kept."""
    rows = [torch.tensor(values) for values in ([2.0, 8.0], [1.0, 7.0, 3.0], [5.0, -4.0, 0.5, 9.0, 2.0])]
    answers = []
    for row in rows:
        n, given = len(row), row.clone()
        answer = _upsampled(fn, given)
        assert given.equal(row), "the row that came in was changed: write into a new tensor"
        assert isinstance(answer, Tensor), f"a tensor is wanted, this is {type(answer).__name__}"
        assert answer.ndim == 1, f"one row is wanted, this has shape {tuple(answer.shape)}: use one dimension"
        assert len(answer) != 2 * n - 1, (
            f"{n} values became {2 * n - 1}: values midway between neighbours are one too few, 2n - 1 for 2n"
        )
        assert len(answer) == 2 * n, f"{n} values make {2 * n}, not {len(answer)}: n is the length of the row"
        assert not answer.isnan().any(), "there is a nan in the answer: is something divided by zero?"
        answers.append(answer.detach().to(torch.float64))
    for message, mistaken in _MISTAKEN_ROWS:
        same = [torch.allclose(a, mistaken(r.double()), atol=1e-4) for a, r in zip(answers, rows, strict=True)]
        assert not all(same), message
    for answer, row in zip(answers, rows, strict=True):
        right = _read(row.double(), _positions(len(row)))
        assert abs(answer[0] - row[0]) < 1e-4, (
            f"the first output reads position 0, so it is {row[0]:g} for {row.tolist()}, not {answer[0]:.3g}"
        )
        assert abs(answer[-1] - row[-1]) < 1e-4, (
            f"the last output reads position n - 1, so it is {row[-1]:g} for {row.tolist()}, not {answer[-1]:.3g}: "
            "by how much does the position grow from one output to the next?"
        )
        wrong = int((answer - right).abs().argmax())
        assert torch.allclose(answer, right, atol=1e-4), (
            f"the ends are right, but output {wrong} of {row.tolist()} is {answer[wrong]:.4g}, not {right[wrong]:.4g}: "
            "it is a mean of the two neighbours of its position, the nearer one weighing more"
        )
    whole = _upsampled(fn, torch.tensor([0, 1, 5])).detach().to(torch.float64)
    right = _read(torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64), _positions(3))
    assert torch.allclose(whole, right, atol=1e-4), (
        "a row of integers loses what lies between them: the type of the row must not decide the type of the answer"
    )


@as_check
def check_encoder_decoder(cls: Callable[[int, int, tuple[int, ...]], nn.Module]) -> None:
    """`cls(in_channels, classes, widths)`: halvings, doublings, no skips, logits at the size of the input."""
    classes, widths, image = 3, (4, 6, 10), torch.randn(2, 2, 16, 24)
    net = cls(2, classes, widths)
    assert_no_plain_lists(net)
    sizes, logits = sizes_of_feature_maps(net, image)
    assert isinstance(logits, Tensor), f"a tensor of logits is wanted, this is {type(logits).__name__}"
    shape = tuple(logits.shape)
    assert shape != (2, widths[0], 16, 24), (
        f"{widths[0]} channels come out, those of row 0, where {classes} classes are wanted: the 1x1 head is missing"
    )
    assert shape[:2] == (2, classes), f"2 images and {classes} classes give logits (2, {classes}, 16, 24), not {shape}"
    assert shape[2:] == (16, 24), (
        f"an image of 16x24 gives logits (2, {classes}, 16, 24), these are {shape}: as many doublings as halvings "
        "bring the size back"
    )
    smallest = min(sizes)
    assert smallest == (4, 6), (
        f"the smallest feature map of 16x24 is {smallest[0]}x{smallest[1]}: with three widths the image is halved "
        "twice, to 4x6, and the first block works at full size"
    )
    assert logits.any(), "every logit is 0: does the last line return what the decoder made?"
    assert logits.min() < 0 or logits.max() > 1, (
        "all values lie between 0 and 1: return logits, the loss takes the sigmoid by itself"
    )
    assert logits.min() < 0, "no logit is below 0: is there a ReLU behind the head?"
    assert not any(
        isinstance(value, list) and any(isinstance(x, Tensor) for x in value) for value in vars(net).values()
    ), "a list in self keeps feature maps from one call to the next: make it a local variable of forward"
    _assert_other_depths(cls)
    _assert_layers(net, classes)
    _assert_no_way_around(net, image, smallest)
    _assert_gradients_arrive(net, image)
    _assert_same_function(net, _EncoderDecoder(2, classes, widths), image)


def _upsampled(fn: Callable[[Tensor], Tensor], row: Tensor) -> Tensor:
    try:
        return fn(row)
    except IndexError as problem:
        raise AssertionError(
            f"a value behind the end of {row.tolist()} is read ({problem}): the last output reads position n - 1, "
            "which has no neighbour to its right"
        ) from None


def _positions(n: int) -> Tensor:
    return torch.arange(2 * n, dtype=torch.float64) * (n - 1) / (2 * n - 1)


def _read(row: Tensor, positions: Tensor) -> Tensor:
    """The row at these positions, linear between neighbours; beyond the ends the outermost values go on."""
    positions = positions.clamp(0, len(row) - 1)
    left = positions.floor().long()
    right = (left + 1).clamp(max=len(row) - 1)
    share = positions - left
    return (1 - share) * row[left] + share * row[right]


def _zeros_between(row: Tensor, first: int) -> Tensor:
    filled = row.new_zeros(2 * len(row))
    filled[first::2] = row
    return filled


def _weights_swapped(row: Tensor) -> Tensor:
    positions = _positions(len(row))
    left = positions.floor().long()
    share = positions - left
    return share * row[left] + (1 - share) * row[(left + 1).clamp(max=len(row) - 1)]


def _steps(numerator: Callable[[int], float], denominator: Callable[[int], float]) -> Callable[[Tensor], Tensor]:
    """Reads positions k * numerator / denominator."""

    def mistaken(row: Tensor) -> Tensor:
        n = len(row)
        return _read(row, torch.arange(2 * n, dtype=torch.float64) * numerator(n) / denominator(n))

    return mistaken


_MISTAKEN_ROWS: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    (
        "these are the values of align_corners=False, which reads at (2k - 1)/4: here all steps are equal",
        lambda row: F.interpolate(row[None, None], scale_factor=2, mode="linear", align_corners=False)[0, 0],
    ),
    ("the row runs backwards: output 0 reads position 0", lambda row: _read(row, _positions(len(row))).flip(0)),
    (
        "every value is only repeated, or positions are rounded: take a mean of two neighbours",
        lambda row: row.repeat_interleave(2),
    ),
    ("the whole row is repeated behind itself: new values belong between old ones", lambda row: row.repeat(2)),
    ("every second value is 0: fill the gaps from both neighbours", partial(_zeros_between, first=0)),
    ("every second value is 0: fill the gaps from both neighbours", partial(_zeros_between, first=1)),
    (
        "the fraction of the position is cut off: between two neighbours lies a mean of both, not the left one",
        lambda row: row[_positions(len(row)).floor().long()],
    ),
    ("the two weights are swapped: the nearer neighbour weighs more", _weights_swapped),
    (
        "the last output does not reach the last value: 2n outputs have 2n - 1 steps between them, not 2n",
        _steps(lambda n: n - 1, lambda n: 2 * n),
    ),
    (
        "the positions go beyond the last value: n values have n - 1 steps between them, not n",
        _steps(lambda n: n, lambda n: 2 * n - 1),
    ),
    (
        "the position grows by one half, which reaches the end too early: the steps are (n - 1)/(2n - 1)",
        _steps(lambda n: 1, lambda n: 2),
    ),
]


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


def _bilinear(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class _EncoderDecoder(nn.Module):
    """The reference, and with other arguments the mistakes that have the same weights."""

    def __init__(
        self,
        in_channels: int,
        classes: int,
        widths: tuple[int, ...],
        *,
        pool: Callable[[Tensor], Tensor] = _max_pool,
        up: Callable[[Tensor], Tensor] = _bilinear,
        block_first: bool = False,
    ):
        super().__init__()
        self.pool, self.enlarge, self.block_first = pool, up, block_first
        self.down = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise(widths[::-1]))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i > 0 else x)
        for block in self.up:
            x = self.enlarge(block(x)) if self.block_first else block(self.enlarge(x))
        return self.head(x)


_MISTAKEN_NETS = [
    ("the mean of four pixels is taken where the maximum is asked for", {"pool": partial(F.avg_pool2d, kernel_size=2)}),
    ("one pixel of four is picked where the maximum is asked for", {"pool": lambda x: x[:, :, ::2, ::2]}),
    (
        "pixels are repeated where bilinear interpolation is asked for (mode='nearest' is the default)",
        {"up": partial(F.interpolate, scale_factor=2)},
    ),
    (
        "the interpolation is bilinear but without align_corners=True",
        {"up": partial(F.interpolate, scale_factor=2, mode="bilinear", align_corners=False)},
    ),
    (
        "the interpolation is bicubic where bilinear is asked for",
        {"up": partial(F.interpolate, scale_factor=2, mode="bicubic", align_corners=True)},
    ),
    ("the decoder's block works before the doubling: double first, then the block", {"block_first": True}),
]


def _assert_other_depths(cls: Callable[[int, int, tuple[int, ...]], nn.Module]) -> None:
    """Three halvings, one, and none: nothing may be written out for three widths."""
    for widths, name, want in (((4, 5, 6, 7), "four widths", (2, 3)), ((4, 5), "two widths", (8, 12))):
        hint = f"with {name} the image is halved {len(widths) - 1} times: loop over the blocks, do not write them out"
        try:
            sizes, logits = sizes_of_feature_maps(cls(3, 1, widths), torch.randn(2, 3, 16, 24))
        except NotImplementedError:
            raise
        except Exception as problem:
            raise AssertionError(f"{hint} for three (it stops with {type(problem).__name__}: {problem})") from problem
        assert min(sizes) == want and logits.shape == (2, 1, 16, 24), f"{hint} for three"
    try:
        sizes, logits = sizes_of_feature_maps(cls(3, 1, (4,)), torch.randn(2, 3, 16, 24))
        right = sizes == {(16, 24)} and logits.shape == (2, 1, 16, 24)
    except Exception:
        right = False
    assert right, "with one width nothing is halved or doubled: one block and the head remain, at full size"


def _assert_layers(net: nn.Module, classes: int) -> None:
    for name, module in net.named_modules():
        assert not isinstance(module, nn.ConvTranspose2d), (
            f"{name} is a transposed convolution: double by bilinear interpolation, which has no weights"
        )
        if isinstance(module, nn.Conv2d):
            assert module.stride == (1, 1), (
                f"{name} is a convolution of stride {module.stride[0]}: halve by max pooling"
            )
            assert module.out_channels != classes or module.kernel_size == (1, 1), (
                f"{name}, the head, is a {module.kernel_size[0]}x{module.kernel_size[1]} convolution: use 1x1"
            )


def _assert_no_way_around(net: nn.Module, image: Tensor, smallest: tuple[int, int]) -> None:
    """With the lowest level silenced, nothing of the image may reach the logits."""

    def silence(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        return torch.zeros_like(output) if tuple(output.shape[2:]) == smallest else None

    hooks = [module.register_forward_hook(silence) for module in net.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        net.eval()
        one, other = net(image), net(image.flip(3))
        net.train()
    for hook in hooks:
        hook.remove()
    assert torch.allclose(one, other, atol=1e-6), (
        "with the lowest level silenced the logits still depend on the image: a skip connection goes around it, and "
        "here the decoder reads nothing but the up-sampled map"
    )


def _assert_gradients_arrive(net: nn.Module, image: Tensor) -> None:
    used: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, _output, name=name: used.add(name))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    net.zero_grad()
    output = net(image)
    for hook in hooks:
        hook.remove()
    weighted = (output * torch.randn_like(output)).sum()
    assert weighted.requires_grad, "no gradient leaves the logits: is forward under no_grad, or its result detached?"
    weighted.backward()
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            assert name in used, f"{name} is built but never used"
            assert module.weight.grad is not None and module.weight.grad.any(), (
                f"{name} is used but no gradient reaches it: is something detached, or made under no_grad?"
            )


def _assert_same_function(net: nn.Module, reference: nn.Module, image: Tensor) -> None:
    ours, theirs = (sum(p.numel() for p in n.parameters()) for n in (net, reference))
    assert ours == theirs, (
        f"{ours} parameters, but a VGGBlock a width on the way down, one a doubling on the way up and a 1x1 head make "
        f"{theirs}: is a block missing, or one too many, or has one other channels?"
    )
    pairs = list(zip(net.parameters(), reference.parameters(), strict=False))
    assert all(a.shape == b.shape for a, b in pairs), (
        "the blocks stand in another order than the text asks for: encoder from the top, decoder from the lowest, head"
    )
    config = (image.shape[1], reference.head.out_channels, (4, 6, 10))
    state = {name: ours.data for (name, _), ours in zip(reference.named_parameters(), net.parameters(), strict=True)}

    def same_as(other: nn.Module) -> bool:
        other.load_state_dict(state, strict=False)  # batch norm in training needs no running statistics
        with torch.no_grad():
            return torch.allclose(net.train()(image), other.train()(image), atol=1e-4)

    if same_as(reference):
        return
    for message, other in _MISTAKEN_NETS:
        assert not same_as(_EncoderDecoder(*config, **other)), message
    raise AssertionError(
        "the shapes and the weights are right, the values are not: each row down is max pooling, then a block; each "
        "row up is bilinear doubling with align_corners=True, then a block; last the head, and nothing else"
    )
