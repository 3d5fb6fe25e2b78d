"""Settings change how a net is computed, not what: devices, number formats, memory layout, folded norms."""

import pytest
import torch
from torch import nn

from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict import probabilities
from course_lib.predict.setting import FORMATS, Setting, folded, torch_device


@pytest.fixture
def net():
    torch.manual_seed(0)
    return NestedUNet(widths=(4, 6, 10), deep_supervision=True).eval()


def test_unknown_precision_is_refused():
    with pytest.raises(UserError, match="precision 'fp8' is unknown: choose one of fp32, bf16, fp16"):
        Setting(precision="fp8")


@pytest.mark.parametrize(
    ("name", "cuda", "device"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda:1", True, "cuda:1")],
)
def test_a_gpu_is_taken_where_there_is_one(monkeypatch, name, cuda, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * cuda)
    assert torch_device(name) == torch.device(device)
    if cuda:
        with pytest.raises(UserError, match=r"device 'cuda:7' is not on this machine: it has 2 GPU\(s\)"):
            torch_device("cuda:7")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cuda:1", "device 'cuda:1' is not on this machine: use 'cpu'"),
        ("gpu", "device 'gpu' is unknown: use auto, cpu or cuda"),
    ],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch, name, sentence):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=sentence):
        torch_device(name)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", FORMATS)
def test_settings_change_the_rounding_only(net, precision, channels_last):
    images = torch.rand(2, 3, 16, 24)
    plain = probabilities(net, images, setting=Setting("cpu"))
    setting = Setting("cpu", precision, channels_last=channels_last)
    maps = probabilities(net, images, setting=setting)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, plain, rtol=0, atol=1e-5 if precision == "fp32" else 0.02)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert net.conv1_0.conv1.weight.is_contiguous(memory_format=torch.channels_last) is channels_last
    seen = []
    net.conv0_0.register_forward_pre_hook(lambda block, inputs: seen.extend(inputs))
    assert setting.forward(net, images)[-1].dtype == FORMATS[precision]
    assert seen[0].is_contiguous(memory_format=torch.channels_last) is channels_last


def test_folding_is_for_inference_and_on_a_copy(net):
    image = torch.rand(2, 3, 16, 24)
    plain = probabilities(net.train(), image, setting=Setting("cpu"))
    maps = probabilities(net, image, setting=Setting("cpu", channels_last=True, fold=True))
    torch.testing.assert_close(maps, plain, rtol=0, atol=1e-5)
    assert net.training and net.node(0, 1).conv1.weight.is_contiguous()
    assert isinstance(net.node(0, 1).bn1, nn.BatchNorm2d)
    small = Setting("cpu", fold=True).for_inference(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    assert Setting("cpu").for_inference(net) is net and not net.training


@pytest.mark.parametrize("precision", FORMATS)
def test_the_folded_copy_is_cast_once_to_the_same_logits(net, precision):
    images, setting = torch.rand(2, 3, 16, 24), Setting("cpu", precision, channels_last=True, fold=True)
    small = setting.for_inference(net)
    assert {p.dtype for p in small.parameters()} == {FORMATS[precision]}
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    cast_each_time = setting.place(folded(net))
    for ours, theirs in zip(setting.forward(small, images), setting.forward(cast_each_time, images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_norm_that_cannot_be_folded_stays_fp32():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    setting = Setting("cpu", "bf16", fold=True)
    small = setting.for_inference(net)
    assert [p.dtype for p in small.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 2 + [torch.bfloat16] * 2
    assert setting.forward(small, torch.rand(1, 3, 4, 4))[0].isfinite().all()


def test_one_tensor_becomes_a_list_of_one():
    outputs = Setting("cpu").forward(nn.Conv2d(3, 1, 1), torch.rand(1, 3, 4, 4))
    assert isinstance(outputs, list) and outputs[0].shape == (1, 1, 4, 4)


def test_fast_is_a_setting_of_this_machine():
    fast = Setting.fast("cpu")
    assert fast.device == "cpu" and fast.channels_last and fast.fold and not fast.compile
    assert fast.precision in ("fp32", "bf16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_nothing_is_recorded_without_a_gpu():
    for device in ("cpu", "auto"):
        with pytest.raises(
            UserError, match=f"record needs an NVIDIA GPU, and device '{device}' is none here: leave record"
        ):
            Setting(device, record=True)
