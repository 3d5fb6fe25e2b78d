"""A trained net on an image file: the map at the file's size, nuclei, their table, their outlines."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage.draw import disk

from course_lib.data.pixels import read_image, resize_image
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict import apply, predict
from course_lib.predict.apply import apply_to, objects, outlined, overlaid
from course_lib.predict.setting import Setting

CPU = Setting("cpu")


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = NestedUNet(widths=(4, 6, 10), deep_supervision=True)
    for _ in range(20):
        net(torch.rand(4, 3, 16, 24))
    return net.eval()


@pytest.fixture
def file(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (37, 52, 3)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_without_a_size_the_net_sees_the_file_as_it_is(net, file):
    image, probability, scale = apply_to(file, net, setting=CPU)
    assert (image == read_image(file.read_bytes(), "a")).all() and scale == 1
    expected = predict(net, torch.from_numpy(image).permute(2, 0, 1), setting=CPU).numpy()
    assert (probability == expected).all() and probability.shape == (1, 37, 52)


def test_with_a_size_it_sees_the_resized_file_and_the_map_grows_back(net, file):
    _, probability, scale = apply_to(file, net, size=16, head=1, setting=CPU)
    seen = torch.from_numpy(resize_image(read_image(file.read_bytes(), "a"), 16)).permute(2, 0, 1)
    small = predict(net, seen, head=1, setting=CPU)
    assert probability.shape == (1, 37, 52) and scale == pytest.approx((37 * 52) ** 0.5 / 16)
    assert probability.mean() == pytest.approx(small.mean().item(), abs=0.01)
    corners = probability[0][[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners == pytest.approx(small[0][[0, 0, -1, -1], [0, -1, 0, -1]].numpy(), abs=1e-5)


def test_a_file_that_is_not_there_is_named(net, tmp_path):
    with pytest.raises(UserError, match=r"nothing\.png is not a file: check its name"):
        apply_to(tmp_path / "nothing.png", net)


@pytest.fixture
def labels():
    """Two touching disks of radius 8: 1 about column 20, 2 about column 35."""
    labels = np.zeros((40, 60), np.int32)
    for number, column in ((1, 20), (2, 35)):
        labels[disk((20, column), 8)] = number
    return labels


def test_every_nucleus_is_a_row(labels):
    areas = [int((labels == number).sum()) for number in (1, 2)]
    first = {"number": 1, "area": areas[0], "row": 20.0, "column": pytest.approx(20, abs=0.1)}
    assert objects(labels) == [first, {"number": 2, "area": areas[1], "row": 20.0, "column": 35.0}]
    assert objects(np.zeros((4, 5), np.int32)) == []


def test_outlines_are_the_rims_and_the_image_is_left_alone(labels):
    image = np.zeros((40, 60, 3), np.uint8)
    picture = outlined(image, labels)
    orange = (picture == [230, 159, 0]).all(axis=2)
    assert (image == 0).all() and (picture[~orange] == 0).all()
    assert orange[20, 13] and orange[20, 42] and not orange[20, 20] and (labels[orange] > 0).all()


def test_channels_are_those_of_the_net(tmp_path):
    planes = np.random.default_rng(0).integers(0, 60_000, (2, 24, 32)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "two.tif", planes, photometric="minisblack")
    applied = apply_to(tmp_path / "two.tif", NestedUNet(in_channels=2, classes=3, widths=(2, 3)).eval(), setting=CPU)
    assert applied.image.shape == (24, 32, 2) and applied.probability.shape == (3, 24, 32)
    assert outlined(applied.image, np.zeros((24, 32), int)).shape == (24, 32, 3)
    with pytest.raises(UserError, match=r"two\.tif has 2 channels and the net takes 3: give an image like"):
        apply_to(tmp_path / "two.tif", NestedUNet(widths=(2, 3)).eval(), setting=CPU)


def test_classes_lie_over_the_image_in_colours_with_their_names():
    image, masks = np.full((40, 60, 3), 100, np.uint8), np.zeros((2, 40, 60), bool)
    masks[0, 5:9, 5:9] = masks[1, 20:30, 20:30] = True
    picture = overlaid(image, masks, ("cell", "nucleus"))
    assert picture.shape == (40 + 2 * 14, 60, 3) and (image == 100).all()
    assert picture[6, 6].tolist() == [50 + 115, 50 + 79, 50] and picture[25, 25].tolist() == [
        50 + 43,
        50 + 90,
        50 + 116,
    ]
    assert picture[0, 0].tolist() == [100] * 3 and picture[47, 7].tolist() == [230, 159, 0]
    assert min(picture[40:54, 16:].max(), picture[54:, 16:].max()) > 200  # the names


def test_a_net_of_halved_images_sees_the_file_halved(net, file):
    image, probability, scale = apply_to(file, net, shrink=2, setting=CPU)
    seen = torch.from_numpy(resize_image(image, (18, 26))).permute(2, 0, 1)
    small = predict(net, seen, setting=CPU)
    assert image.shape == (37, 52, 3) and probability.shape == (1, 37, 52)
    assert scale == pytest.approx((37 * 52 / (18 * 26)) ** 0.5)
    assert probability.mean() == pytest.approx(small.mean().item(), abs=0.01)


def test_outlines_are_the_same_strip_by_strip(monkeypatch):
    labels = np.zeros((40, 30), int)
    for number, place in enumerate([(8, 8), (20, 12), (31, 20)], start=1):
        labels[disk(place, 7, shape=labels.shape)] = number
    image = np.zeros((40, 30, 3), np.uint8)
    whole = outlined(image, labels)
    assert (whole[1] == whole[39]).all() and (whole > 0).any(2).sum() > 60
    for rows in (1, 7, 39, 40):
        monkeypatch.setattr(apply, "STRIP", rows)
        assert np.array_equal(outlined(image, labels), whole)
