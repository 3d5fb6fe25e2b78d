"""What the interactive views show, without a widget: numbers against independent counts, and refusals."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from course_lib import measure, metrics
from course_lib.errors import UserError
from course_lib.grid import SKIPS, NestedUNet
from course_lib.losses import bce_dice
from course_lib.predict import as_input, probabilities
from course_lib.show import NAMES, views
from course_lib.show.figures import png
from course_lib.show.views.losses import LOSSES, disk


@pytest.fixture(scope="module")
def nuclei():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
    masks[:, :, 8:20, 10:24] = 1
    return images, masks


@pytest.fixture
def net():
    torch.manual_seed(0)
    return NestedUNet(widths=(4, 6, 10), deep_supervision=True)


@pytest.mark.parametrize("wiring", SKIPS)
@pytest.mark.parametrize(("depth", "width", "supervised"), [(1, 8, False), (4, 32, True), (3, 16, False)])
def test_the_grid_says_what_the_real_net_costs(wiring, depth, width, supervised):
    if wiring == "unet" and supervised:
        with pytest.raises(UserError, match="unet-e"):
            views.design(wiring, depth, width=width, deep_supervision=True)
        return
    view = views.grid_view(views.design(wiring, depth, width=width, deep_supervision=supervised), (0, depth))
    real = NestedUNet(3, 1, [width * 2**i for i in range(depth + 1)], wiring, supervised)
    assert f"{measure.parameters(real):,} parameters" in view.text
    assert f"{measure.macs(real) / 1e9:.2f} billion MACs" in view.text
    assert view.text.startswith(f"{NAMES[wiring]}, depth {depth}")
    side = measure.receptive_field(NestedUNet(3, 1, [1] * (depth + 1), wiring))[0]
    assert f"sees {side}x{side} pixels" in view.text


def test_several_classes_the_published_net_and_its_cut():
    net = NestedUNet(3, 2000, (8, 16, 32))  # heads that cost something
    assert f"{measure.macs(net) / 1e9:.2f} billion" in views.grid_view(net, (0, 2)).text
    assert "9,163,428 parameters" in views.grid_view(views.design("unet++", 4), (0, 4)).text
    cut = views.design("unet++", 4, level=1)
    assert cut.nodes == [(0, 0), (1, 0), (0, 1)]
    with pytest.raises(UserError, match="x0,2: choose from x0,0 x1,0 x0,1"):
        views.grid_view(cut, (0, 2))


@pytest.mark.parametrize("number", ["parameters", "MACs", "receptive field"])
def test_every_node_answers_where_it_is_drawn(number):
    net = views.design("unet++", 2, width=4, deep_supervision=False)
    view = views.grid_view(net, (0, 1), number=number)
    assert [spot.text.split(" = ")[0] for spot in view.spots] == [f"x{i},{j}" for i, j in net.nodes]
    assert "x0,2 = H([x0,0, x0,1, U(x1,1)])" in view.spots[-1].text
    left, top = ([spot[n] for spot in view.spots] for n in (0, 1))
    assert left[0] == left[1] < left[-1] and top[0] == top[-1] < top[1]  # columns to the right, rows downwards
    canvas = FigureCanvasAgg(view.figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].min(-1)
    high, wide = picture.shape
    for spot in view.spots:
        rows = slice(round(spot.top * high), round((spot.top + spot.height) * high))
        columns = slice(round(spot.left * wide), round((spot.left + spot.width) * wide))
        inside = picture[rows, columns]
        assert (inside < 100).mean() > 0.03, spot  # an edge, a name
        assert (inside[len(inside) // 2] < 100).sum() > 1


def test_four_wirings_in_print():
    view = views.four_wirings()
    assert "U-Net: 9 nodes, 7.85 million parameters" in view.text
    assert "UNet++: 15 nodes, 9.16 million parameters" in view.text
    assert [len(axis.texts) for axis in view.figure.axes] == [0] * 4  # small nodes have no names


def test_predictions_agree_with_predict_and_metrics(net, nuclei):
    images, masks = nuclei
    seen = views.Predictions(net, images, masks)
    assert seen.heads == {"mean": "mean", "L1": 1, "L2": 2}
    for name, head in seen.heads.items():
        mask = probabilities(net, images, head=head)[2:3] > 0.45
        expected = metrics.iou(metrics.count(mask, masks[2:3])).item()
        assert f"IoU {expected:.3f}" in seen.view(2, 0.45, head=name).text
    assert len({png(seen.view(2, t).figure) for t in (0.4, 0.6)}) == 2
    assert all(ms > 0 for ms in seen.ms.values())
    in_print = seen.heads_and_thresholds(1)
    assert len(in_print.figure.axes) == 9 and png(in_print.figure)
    assert [line.split(":")[0] for line in in_print.text.splitlines()] == ["mean", "L1", "L2"]


def test_predictions_of_a_net_with_one_head(nuclei):
    net = NestedUNet(widths=(4, 6), wiring="unet").train()
    seen = views.Predictions(net, *nuclei)
    assert list(seen.heads) == ["the only head"]
    assert net.training
    assert "head the only head" in seen.view().text
    for wrong in (lambda: seen.view(4), lambda: seen.heads_and_thresholds(4)):
        with pytest.raises(UserError, match="choose 0 to 3"):
            wrong()
    with pytest.raises(UserError, match="choose from the only head"):
        seen.view(head="mean")
    with pytest.raises(UserError, match="one mask for each image"):
        views.Predictions(net, nuclei[0], nuclei[1][:2])


def test_features_are_what_the_nodes_compute(net, nuclei):
    image = nuclei[0][0]
    seen = views.Features(net, image)
    x00 = net.eval().node(0, 0)(as_input(image[None]))[0]
    np.testing.assert_allclose(seen.maps[0, 0], x00.detach().numpy(), atol=1e-5)
    assert seen.maps[1, 1].shape == (6, 16, 16)
    assert "6 channels of 16x16" in seen.view((1, 1)).text
    for channel, maps in ((0, seen.maps[0, 0].mean(0)), (2, seen.maps[0, 0][1]), (5, seen.maps[0, 0][0])):  # of 4
        drawn = seen.view(None, channel).figure.axes[0].images[0].get_array()
        np.testing.assert_allclose(drawn, (maps - maps.min()) / np.ptp(maps), atol=1e-6)
    with pytest.raises(UserError, match="x3,0"):
        seen.view((3, 0))
    with pytest.raises(UserError, match="halved"):
        views.Features(net, image[:, :30])
    with pytest.raises(UserError, match="one image"):
        views.Features(net, nuclei[0])


def test_looking_names_a_silent_node_and_leaves_the_net_as_it_was(net, nuclei):
    net.train().node(2, 0).bn2.weight.data.zero_()
    net.node(2, 0).bn2.bias.data.fill_(-1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert views.Features(net, nuclei[0][0]).view().text == "0 everywhere: x2,0"
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("wiring", "every", "silent"), [("unet-e", False, 6), ("unet-e", True, 0), ("unet++", False, 0), ("unet", False, 0)]
)
def test_gradients_count_the_silent_nodes(nuclei, wiring, every, silent):
    state = torch.random.get_rng_state()
    view = views.gradient_view(*nuclei, wiring=wiring, every_head=every)
    assert view.text.startswith(f"{silent} of {9 if wiring == 'unet' else 15} nodes get no gradient")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_gradients_of_another_loss_are_others(nuclei):
    assert len({png(views.gradient_view(*nuclei, loss=loss).figure) for loss in LOSSES}) == len(LOSSES)
    with pytest.raises(UserError, match="unet-e"):
        views.gradient_view(*nuclei, wiring="unet", every_head=True)


def test_losses_are_those_of_the_package_and_small_in_the_right_place():
    true = (disk() > 0).float()
    text = views.loss_view(5, 9, blur=2, loss="BCE").text
    assert f"BCE/2 + Dice {bce_dice(disk(5, 9, blur=2), true).item():.3f}" in text
    mask = metrics.iou(metrics.count(disk(5, 9) > 0, true)).item()
    assert f"mask {1 - mask:.3f}" in text
    parts = (part.rsplit(" ", 1) for part in views.loss_view(0, blur=0.25).text.splitlines()[0].split("  "))
    values = {name: float(value) for name, value in parts}
    assert values["mask"] == 0
    assert all(value < 0.06 for value in values.values()), values


def test_the_disk_lies_where_it_is_said_to_lie():
    rows, columns = (disk(6, 10)[0, 0] > 0).nonzero().T.double()
    assert (rows.mean().item(), columns.mean().item()) == pytest.approx((23.5, 29.5))
    assert len(rows) == pytest.approx(np.pi * 10**2, rel=0.03)


def test_gradients_push_towards_the_true_disk():
    several = views.gradients_of_losses(6, list(LOSSES)).figure.axes[1:]
    for axis in [*several, *(views.loss_view(6, blur=2, loss=loss).figure.axes[1] for loss in LOSSES)]:
        push = np.asarray(axis.images[0].get_array())
        assert push[24, 14] > 0, axis.get_title()  # in the true disk, left of the predicted one
        assert push[24, 38] < 0, axis.get_title()  # the other way round


def test_the_frame_is_the_receptive_field():
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    view = views.receptive_view(image, (0, 1), depth=2)
    assert "reads rows 22 to 41 and columns 22 to 41, 10% of the image" in view.text
    (frame,) = view.figure.axes[0].patches
    assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((21.5, 21.5), 20, 20)
    corner = views.receptive_view(image, (0, 1), depth=2, row=0, column=63)
    assert "reads rows 0 to" in corner.text and "to 63," in corner.text
    seen = [f"depth {depth}: {side}x{side} of 64x64 pixels" for depth, side in ((1, 20), (2, 52), (3, 64))]
    assert views.depths_view(image).text.splitlines() == seen


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((3, 64, 64), {"node": (0, 1), "wiring": "unet"}, "U-Net of depth 2 has no node x0,1"),
        ((3, 64, 64), {"row": 64}, "choose 0 to 63"),
        ((3, 50, 64), {}, "halved 2 times"),
    ],
)
def test_receptive_fields_of_what_is_not_there(shape, options, sentence):
    with pytest.raises(UserError, match=sentence):
        views.receptive_view(torch.zeros(shape), **options)
