"""A trained net on an image file: the map at the file's size, nuclei, their table, their outlines."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.draw import disk

from course_lib.data.pixels import read_image, resize_image
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict import predict
from course_lib.predict.apply import Found, apply_to, nuclei_of, objects, outlined
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
    found = apply_to(file, net, setting=CPU)
    image = read_image(file.read_bytes(), "a")
    assert (found.image == image).all() and found.scale == 1
    expected = predict(net, torch.from_numpy(image).permute(2, 0, 1), setting=CPU)[0].numpy()
    assert (found.probability == expected).all() and found.probability.shape == (37, 52)


def test_with_a_size_it_sees_the_resized_file_and_the_map_grows_back(net, file):
    found = apply_to(file, net, size=16, head=1, setting=CPU)
    seen = torch.from_numpy(resize_image(read_image(file.read_bytes(), "a"), 16)).permute(2, 0, 1)
    small = predict(net, seen, head=1, setting=CPU)
    assert found.probability.shape == (37, 52) and found.scale == pytest.approx(52 / 16)
    assert found.probability.mean() == pytest.approx(small.mean().item(), abs=0.01)
    corners = found.probability[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners == pytest.approx(small[0][[0, 0, -1, -1], [0, -1, 0, -1]].numpy(), abs=1e-5)


def test_a_file_that_is_not_there_is_named(net, tmp_path):
    with pytest.raises(UserError, match=r"nothing\.png cannot be read .*: check the path"):
        apply_to(tmp_path / "nothing.png", net)


def two_disks():
    """Two touching disks of radius 8, and their probability map."""
    probability = np.full((40, 60), 0.1, np.float32)
    for column in (20, 35):
        probability[disk((20, column), 8)] = 0.9
    return Found(np.zeros((40, 60, 3), np.uint8), probability, 1)


def test_touching_nuclei_are_two_rows():
    rows = objects(nuclei_of(two_disks()))
    assert [row["number"] for row in rows] == [1, 2]
    area = (two_disks().probability > 0.5).sum()
    assert sum(row["area"] for row in rows) == area
    assert [row["column"] for row in rows] == pytest.approx([20, 35], abs=0.6)
    assert [row["row"] for row in rows] == pytest.approx([20, 20], abs=0.6)
    assert objects(np.zeros((4, 5), np.int32)) == []
    assert nuclei_of(two_disks(), scale=6).max() == 1  # peaks closer than 18 pixels are one


def test_outlines_are_the_rims_and_the_image_is_left_alone():
    found = two_disks()
    labels = nuclei_of(found)
    picture = outlined(found.image, labels)
    orange = (picture == [230, 159, 0]).all(axis=2)
    assert (found.image == 0).all() and (picture[~orange] == 0).all()
    assert orange[20, 13] and orange[20, 42] and not orange[20, 20] and (labels[orange] > 0).all()
