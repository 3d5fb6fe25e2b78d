"""From a net to probability maps: heads and their mean, any size, tiles without seams; and how a net is placed."""

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.errors import UserError
from course_lib.grid import NestedUNet, VGGBlock
from course_lib.measure import peak_memory
from course_lib.predict import as_input, predict, probabilities, probability, standardise
from course_lib.predict.setting import FORMATS, Setting, torch_device

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
    return [torch.randn(2, 1, 4, 6, generator=generator) for _ in range(3)]


def test_a_number_is_that_head_alone():
    outputs = logits_of_three_heads()
    for head in (1, 2, 3):
        torch.testing.assert_close(probability(outputs, head), 1 / (1 + (-outputs[head - 1]).exp()))
    assert torch.equal(probability(outputs, -1), probability(outputs, 3))


def test_the_mean_is_of_probabilities_and_not_of_logits():
    found = probability([torch.tensor([[[[-4.0]]]]), torch.tensor([[[[0.0]]]])], "mean")
    assert found.item() == pytest.approx((1 / (1 + np.exp(4)) + 0.5) / 2, abs=1e-6)  # of the logits: sigmoid(-2)
    outputs = logits_of_three_heads()
    expected = sum(logits.sigmoid() for logits in outputs) / 3
    torch.testing.assert_close(probability(outputs), expected)


@pytest.mark.parametrize("head", ["mean", 2, -1])
def test_half_precision_logits_give_float32(head):
    outputs = [logits.to(torch.bfloat16) for logits in logits_of_three_heads()]
    found = probability(outputs, head)
    assert found.dtype == torch.float32
    assert torch.equal(found, probability([logits.float() for logits in outputs], head))


@pytest.mark.parametrize("head", [0, 4, -2, "last"])
def test_heads_that_do_not_exist_are_refused(head):
    with pytest.raises(UserError, match=rf"head {head!r} does not exist: choose 'mean' or a number from 1 to 3"):
        probability(logits_of_three_heads(), head)


# Many images that fit


def test_uint8_images_are_standardised_one_by_one_and_floats_are_not():
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
    found = probabilities(net, images, head=head, batch_size=2, setting=CPU)
    assert not found.requires_grad
    assert (found.shape, found.dtype, found.device.type) == ((5, 1, 16, 24), torch.float32, "cpu")
    torch.testing.assert_close(found, probability(net(images), head).detach())
    bytes_ = (255 * images).round().to(torch.uint8)
    expected = probability(net(as_input(bytes_)), head).detach()
    torch.testing.assert_close(probabilities(net, bytes_, head=head, setting=CPU), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_and_the_statistics_stay(training):
    net = make().train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = probabilities(net, picture(16, 24)[None], setting=CPU)
    assert all(module.training is training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(found, probabilities(net.eval(), picture(16, 24)[None], setting=CPU))


def test_the_mode_stays_when_the_net_refuses():
    net = make().train()
    with pytest.raises(UserError, match="convert it first"):
        probabilities(net, torch.rand(1, 1, 16, 24), setting=CPU)
    assert net.training


# One image of any size


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 23), (97, 100), (4, 130)])
def test_any_size_is_the_net_on_the_mirrored_image(size):
    net = make(classes=2)
    found = predict(net, picture(*size), setting=CPU)
    assert found.shape == (2, *size)
    assert ((found > 0) & (found < 1)).all()
    pad = [(0, 0), *((0, -side % 4) for side in size)]
    mirrored = torch.from_numpy(np.pad(picture(*size).numpy(), pad, mode="reflect"))
    expected = probabilities(net, mirrored[None], setting=CPU)[0, :, : size[0], : size[1]]
    torch.testing.assert_close(found, expected)


def test_sizes_that_fit_are_not_touched():
    net, image = make(), picture(16, 24)
    assert torch.equal(predict(net, image, setting=CPU), probabilities(net, image[None], setting=CPU)[0])


def test_predict_takes_bytes_and_the_head():
    net, image = make(), (255 * picture(17, 23)).to(torch.uint8)
    for head in ("mean", 1, 2):
        prepared = as_input(image[None])[0]
        torch.testing.assert_close(
            predict(net, image, head=head, setting=CPU), predict(net, prepared, head=head, setting=CPU)
        )
    assert (predict(net, image, head=1, setting=CPU) - predict(net, image, head=2, setting=CPU)).abs().max() > 0.01


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
    found = predict(net, image, tile=tile, overlap=overlap, setting=CPU)
    torch.testing.assert_close(found, image[:1].sigmoid())
    assert all(max(piece.shape[1:]) <= tile and all(side % 4 == 0 for side in piece.shape[1:]) for piece in net.seen)


def test_neighbouring_tiles_share_the_overlap():
    columns = torch.arange(104.0).expand(3, 16, 104)
    net = Recorder()
    predict(net, columns, tile=32, overlap=8, setting=CPU)
    spans = [(int(piece.min()), int(piece.max())) for piece in net.seen]
    assert spans == [(0, 31), (24, 55), (48, 79), (72, 103)]
    net = Recorder()
    predict(net, columns[..., :92], tile=32, overlap=8, setting=CPU)
    spans = [(int(piece.min()), int(piece.max())) for piece in net.seen]
    assert spans == [(0, 31), (24, 55), (48, 79), (60, 91)]  # the last is flush with the end


class Counter(nn.Module):
    """Each call answers one more than the call before."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, image):
        self.calls += 1
        return torch.full_like(image[:, :1], self.calls)


def test_blending_falls_evenly_from_tile_to_tile():
    found = predict(Counter(), picture(16, 24), tile=16, overlap=8, setting=CPU)[0]
    first, second = torch.tensor([1.0, 2.0]).sigmoid()
    share = torch.tensor([0.0] * 8 + [n / 9 for n in range(1, 9)] + [1.0] * 8)  # 9 steps over 8 shared pixels
    torch.testing.assert_close(found, (first + share * (second - first)).expand(16, 24))


def test_a_last_tile_that_overlaps_more_is_blended_alike():
    """Tiles at columns 0..15, 12..27 and 16..31 with rims of 4: the second is whole up to 23, the third from 20 on."""
    found = predict(Counter(), picture(16, 32), tile=16, overlap=4, setting=CPU)[0]
    first, second, third = torch.tensor([1.0, 2.0, 3.0]).sigmoid().tolist()
    rim = [0.2, 0.4, 0.6, 0.8]
    weights = [[0.0] * 12 + rim + [1.0] * 8 + rim[::-1] + [0.0] * 4, [0.0] * 16 + rim + [1.0] * 8 + rim[::-1]]
    weights = torch.tensor([[1.0] * 12 + rim[::-1] + [0.0] * 16, *weights])
    expected = (weights * torch.tensor([[first], [second], [third]])).sum(0) / weights.sum(0)
    torch.testing.assert_close(found, expected.expand(16, 32))


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


def test_seams_of_a_grid_are_small():
    """Up-sampling with align_corners depends on where a tile ends, so tiles of a grid agree only roughly."""
    net, image = make(), picture(64, 96)
    whole, tiled = (predict(net, image, tile=tile, overlap=32, setting=CPU) for tile in (96, 64))
    assert not torch.equal(whole, tiled)
    assert (whole - tiled).abs().mean() < 0.1 * whole.std()
    steps = tiled.diff(dim=2).abs().amax(dim=(0, 1))
    assert steps[31:64].max() < 1.5 * whole.diff(dim=2).abs().max()


def test_tiles_of_bytes_share_the_light_of_the_whole_image():
    """Left half dark, right half bright: a tile standardised by itself would not know which it is."""
    image = torch.cat([torch.full((3, 16, 24), 10), torch.full((3, 16, 24), 240)], dim=2).to(torch.uint8)
    expected = standardise(image[None].float() / 255)[0, :1].sigmoid()
    torch.testing.assert_close(predict(Recorder(), image, tile=8, overlap=0, setting=CPU), expected)


def test_of_a_large_image_only_the_map_and_a_tile_are_held():
    net, side, tile = make(widths=(2, 3), deep_supervision=False), 1200, 64
    image = torch.zeros(3, side, side, dtype=torch.uint8)
    one_tile = peak_memory(lambda: predict(net, image[:, :tile, :tile], tile=tile, overlap=8, setting=CPU))
    whole = peak_memory(lambda: predict(net, image, tile=tile, overlap=8, setting=CPU))
    assert whole < 4 * side * side + 4 * one_tile


def test_a_bar_counts_the_tiles_and_is_not_shown_for_one(capsys):
    predict(Counter(), picture(16, 40), tile=16, overlap=8, setting=CPU, progress=True)
    assert "0/4 [" in capsys.readouterr().err
    predict(Counter(), picture(16, 16), tile=16, overlap=8, setting=CPU, progress=True)
    predict(Counter(), picture(16, 40), tile=16, overlap=8, setting=CPU)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("tile", "overlap"), [(30, 8), (32, 6), (32, 32), (32, 40), (32, -4)])
def test_tiles_that_do_not_fit_are_refused(tile, overlap):
    with pytest.raises(UserError, match=f"tile {tile} and overlap {overlap} do not fit: give multiples of 4, overlap"):
        predict(make(), picture(16, 24), tile=tile, overlap=overlap, setting=CPU)


@pytest.mark.parametrize("shape", [(16, 24), (1, 3, 16, 24)])
def test_only_one_image_is_taken(shape):
    with pytest.raises(UserError, match="give one image as"):
        predict(make(), torch.rand(shape), setting=CPU)


# Setting


def test_unknown_precision_is_refused():
    with pytest.raises(UserError, match="precision 'int8' is unknown: choose one of fp32, bf16, fp16"):
        Setting(precision="int8")


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device 'cuda:1' is not on this machine: use 'cpu'"):
        torch_device("cuda:1")
    assert torch_device("auto") == torch.device("cpu")


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_device("auto") == torch.device("cuda")
    assert torch_device("cpu") == torch.device("cpu")
    assert torch_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", FORMATS)
def test_settings_change_the_rounding_only(precision, channels_last):
    net, images = make(), picture(16, 24)[None]
    expected = probabilities(net, images, setting=CPU)
    setting = Setting("cpu", precision, channels_last=channels_last)
    found = probabilities(net, images, setting=setting)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if precision == "fp32" else 0.02)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    last = net.conv1_0.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert last is channels_last
    assert setting.forward(net, images)[-1].dtype == FORMATS[precision]
    net = Recorder()
    setting.forward(net, torch.rand(2, 3, 16, 24))
    assert net.seen[0][None].is_contiguous(memory_format=torch.channels_last) is channels_last
