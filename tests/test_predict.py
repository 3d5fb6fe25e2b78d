"""From a net to probability maps: heads and their mean, any size, tiles without seams."""

import copy
import sys

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.errors import UserError
from course_lib.grid import NestedUNet, VGGBlock
from course_lib.measure import peak_memory
from course_lib.predict import as_input, predict, probabilities, probability, standardise
from course_lib.predict.maps import TILES
from course_lib.predict.setting import Setting
from tests.weights import same_weights

CPU = Setting(device="cpu")


def make(**options):
    torch.manual_seed(0)
    net = NestedUNet(**({"widths": (4, 6, 10), "deep_supervision": True} | options))
    for _ in range(20):
        net(torch.rand(4, 3, 16, 24))  # running statistics as after training, so that no map fades out
    return net.eval()


def picture(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


# Heads


def logits_of_three_heads():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 1, 4, 6, generator=generator).to(torch.bfloat16) for _ in range(3)]


@pytest.mark.parametrize(("head", "chosen"), [("mean", [0, 1, 2]), (1, [0]), (2, [1]), (3, [2]), (-1, [2])])
def test_a_number_is_that_head_alone_and_the_mean_is_of_probabilities(head, chosen):
    outputs = logits_of_three_heads()
    maps = probability(outputs, head)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, sum(1 / (1 + (-outputs[n].float()).exp()) for n in chosen) / len(chosen))


@pytest.mark.parametrize("head", [0, 4, -2, "last"])
def test_heads_that_do_not_exist_are_refused(head):
    with pytest.raises(UserError, match=rf"head {head!r} does not exist: choose 'mean' or a number from 1 to 3"):
        probability(logits_of_three_heads(), head)


# Many images that fit


def test_bytes_are_standardised_one_by_one_and_floats_are_not():
    images = torch.tensor([0, 51, 153, 204], dtype=torch.uint8).reshape(1, 1, 2, 2)  # 0, .2, .6, .8
    deviation = (0.16 + 0.04 + 0.04 + 0.16) ** 0.5 / 2  # about the mean 0.4
    expected = [value / (deviation + 0.02) for value in (-0.4, -0.2, 0.2, 0.4)]
    assert as_input(images).flatten().tolist() == pytest.approx(expected)
    both = torch.cat([images, 255 - images // 2])
    torch.testing.assert_close(as_input(both)[0], as_input(images)[0])
    assert torch.equal(as_input(both / 255), both / 255)


def test_exposure_does_not_matter_and_an_empty_image_stays_quiet():
    image = torch.rand(1, 3, 8, 12)
    torch.testing.assert_close(standardise(0.5 * image + 0.3), standardise(image), atol=0.2, rtol=0)
    assert standardise(0.4 + 0.001 * image).abs().max() < 0.05
    assert torch.equal(standardise(torch.full((1, 3, 1, 1), 0.5)), torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize("head", ["mean", 1, 2])
def test_probabilities_are_those_of_the_net(head):
    net, images = make(), torch.stack([picture(16, 24, seed) for seed in range(5)])
    maps = probabilities(net, images, head=head, batch_size=2, setting=CPU)
    assert not maps.requires_grad
    assert (maps.shape, maps.dtype, maps.device.type) == ((5, 1, 16, 24), torch.float32, "cpu")
    torch.testing.assert_close(maps, probability(net(images), head).detach())
    bytes_ = (255 * images).round().to(torch.uint8)
    expected = probability(net(as_input(bytes_)), head).detach()
    torch.testing.assert_close(probabilities(net, bytes_, head=head, setting=CPU), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_and_the_statistics_stay_also_when_the_net_refuses(training):
    net = make().train(training)
    before = copy.deepcopy(net)
    maps = probabilities(net, picture(16, 24)[None], setting=CPU)
    with pytest.raises(UserError, match="convert it first"):
        probabilities(net, torch.rand(1, 1, 16, 24), setting=CPU)
    assert all(module.training is training for module in net.modules()) and same_weights(net, before)
    assert torch.equal(maps, probabilities(net.eval(), picture(16, 24)[None], setting=CPU))


# One image of any size


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 24), (97, 100), (4, 130)])
def test_any_size_is_the_net_on_the_mirrored_image(size):
    net = make(classes=2)
    maps = predict(net, picture(*size), setting=CPU)
    assert maps.shape == (2, *size)
    pad = [(0, 0), *((0, -side % 4) for side in size)]
    mirrored = torch.from_numpy(np.pad(picture(*size).numpy(), pad, mode="reflect"))
    expected = probabilities(net, mirrored[None], setting=CPU)[0, :, : size[0], : size[1]]
    torch.testing.assert_close(maps, expected)


def test_predict_takes_bytes_and_the_head():
    net, image = make(), (255 * picture(17, 23)).to(torch.uint8)
    maps = {head: predict(net, image, head=head, setting=CPU) for head in ("mean", 1, 2)}
    for head, map_ in maps.items():
        torch.testing.assert_close(map_, predict(net, as_input(image[None])[0], head=head, setting=CPU))
    assert (maps[1] - maps[2]).abs().max() > 0.01


# Tiles


class Recorder(nn.Module):
    """A net without weights whose logit is the first channel; it keeps what it was shown."""

    depth = 2

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, image):
        self.seen.append(image[0])
        return [image[:, :1]]


@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 4), (16, 4), (16, 8), (16, 12), (64, 8)])
@pytest.mark.parametrize("size", [(1, 40), (17, 23), (32, 48), (61, 100)])
def test_tiles_cover_everything_once(size, tile, overlap):
    """Weights add up: where every tile says the same, blending says it too."""
    net, image = Recorder(), picture(*size)
    torch.testing.assert_close(predict(net, image, tile=tile, overlap=overlap, setting=CPU), image[:1].sigmoid())
    assert all(max(piece.shape[1:]) <= tile and all(side % 4 == 0 for side in piece.shape[1:]) for piece in net.seen)


@pytest.mark.parametrize(("columns", "last"), [(104, (72, 103)), (92, (60, 91))])  # the last is flush with the end
def test_neighbouring_tiles_share_the_overlap(columns, last):
    net = Recorder()
    predict(net, torch.arange(float(columns)).expand(3, 16, columns), tile=32, overlap=8, setting=CPU)
    spans = [(int(piece.min()), int(piece.max())) for piece in net.seen]
    assert spans == [(0, 31), (24, 55), (48, 79), last]


class Counter(nn.Module):
    """Each call answers one more than the call before."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, image):
        self.calls += 1
        return torch.full_like(image[:, :1], self.calls)


def test_blending_falls_evenly_from_tile_to_tile_also_where_the_last_overlaps_more():
    """Tiles at columns 0..15, 12..27 and 16..31 with rims of 4: the second is whole up to 23, the third from 20 on."""
    blended = predict(Counter(), picture(16, 32), tile=16, overlap=4, setting=CPU)[0]
    rim = [0.2, 0.4, 0.6, 0.8]  # 5 steps over 4 shared pixels
    weights = [[0.0] * 12 + rim + [1.0] * 8 + rim[::-1] + [0.0] * 4, [0.0] * 16 + rim + [1.0] * 8 + rim[::-1]]
    weights = torch.tensor([[1.0] * 12 + rim[::-1] + [0.0] * 16, *weights])
    answers = torch.tensor([[1.0], [2.0], [3.0]]).sigmoid()
    torch.testing.assert_close(blended, ((weights * answers).sum(0) / weights.sum(0)).expand(16, 32))


def test_tiles_equal_one_pass_where_no_rim_is_seen():
    """Convolutions of a receptive field of 9: exact from 4 pixels off each rim, and weighed down within."""
    torch.manual_seed(0)
    net = nn.Sequential(VGGBlock(3, 6), VGGBlock(6, 4), nn.Conv2d(4, 1, 1)).eval()
    image = picture(32, 56)
    whole = predict(net, image, setting=CPU)
    tiled = predict(net, image, tile=32, overlap=16, setting=CPU)  # tiles at columns 0..31, 16..47, 24..55
    wrong = (whole - tiled).abs()[0]
    clean = [*range(16), *range(52, 56)]
    assert wrong[:, clean].max() < 1e-6
    hard = torch.cat([predict(net, image[:, :, :32], setting=CPU), predict(net, image[:, :, 32:], setting=CPU)], dim=2)
    assert wrong.max() < 0.35 * (whole - hard).abs().max()


def test_tiles_of_bytes_share_the_light_of_the_whole_image():
    """Left half dark, right half bright: a tile standardised by itself would not know which it is."""
    image = torch.cat([torch.full((3, 16, 24), 10), torch.full((3, 16, 24), 240)], dim=2).to(torch.uint8)
    expected = standardise(image[None].float() / 255)[0, :1].sigmoid()
    torch.testing.assert_close(predict(Recorder(), image, tile=8, overlap=0, setting=CPU), expected)


def test_several_tiles_in_a_call_are_the_same_tiles(monkeypatch):
    net, image, calls = make(), picture(16, 72), []
    net.register_forward_pre_hook(lambda net, inputs: calls.append(inputs[0].shape[0]))
    one_by_one = predict(net, image, tile=16, overlap=8, setting=CPU)
    monkeypatch.setitem(TILES, "cpu", 3)
    torch.testing.assert_close(predict(net, image, tile=16, overlap=8, setting=CPU), one_by_one)
    assert calls == [1] * 8 + [3, 3, 2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("record", [False, True])
def test_a_large_image_on_a_gpu_is_the_same_map(record):
    net, image = make(), (255 * picture(100, 172)).clamp(0, 255).to(torch.uint8)
    maps = predict(
        net, image, tile=32, overlap=8, setting=Setting("cuda", channels_last=True, fold=True, record=record)
    )
    assert maps.device.type == "cpu"
    torch.testing.assert_close(maps, predict(net.cpu(), image, tile=32, overlap=8, setting=CPU), rtol=0, atol=0.02)


def test_of_a_large_image_only_the_map_and_a_tile_are_held():
    net, side, tile = make(widths=(2, 3), deep_supervision=False), 1200, 128
    image = torch.zeros(3, side, side, dtype=torch.uint8)
    one_tile = peak_memory(lambda: predict(net, image[:, :tile, :tile], tile=tile, overlap=8, setting=CPU))
    whole = peak_memory(lambda: predict(net, image, tile=tile, overlap=8, setting=CPU))
    assert whole < 4 * side * side + 4 * one_tile


@pytest.mark.parametrize(("terminal", "columns", "shown"), [(True, 40, True), (True, 16, False), (False, 40, False)])
def test_a_bar_counts_several_tiles_in_a_terminal(capsys, monkeypatch, terminal, columns, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    predict(Counter(), picture(16, columns), tile=16, overlap=8, setting=CPU)
    said = capsys.readouterr().err
    assert ("0/4 [" in said) is bool(said) is shown


@pytest.mark.parametrize(("tile", "overlap"), [(30, 8), (32, 6), (32, 32), (32, -4)])
def test_tiles_that_do_not_fit_are_refused(tile, overlap):
    with pytest.raises(UserError, match=f"tile {tile} and overlap {overlap} do not fit: give multiples of 4, overlap"):
        predict(make(), picture(16, 24), tile=tile, overlap=overlap, setting=CPU)


@pytest.mark.parametrize("shape", [(16, 24), (1, 3, 16, 24)])
def test_only_one_image_is_taken(shape):
    with pytest.raises(UserError, match="give one image as"):
        predict(make(), torch.rand(shape), setting=CPU)
