"""Settings change how a net is computed, not what."""

import pytest
import torch
from torch import nn

from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.predict import probabilities
from course_lib.predict.setting import Setting, torch_device


@pytest.fixture
def net():
    torch.manual_seed(0)
    return NestedUNet(widths=(4, 6, 10), deep_supervision=True).eval()


def test_unknown_precision_is_refused():
    with pytest.raises(UserError, match="precision 'fp8' is unknown: choose one of fp32, bf16, fp16"):
        Setting(precision="fp8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none_and_auto_is_the_cpu():
    with pytest.raises(UserError, match="device 'cuda' is not on this machine"):
        torch_device("cuda")
    assert torch_device("auto") == torch_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("setting", "tolerance"),
    [(Setting("cpu", channels_last=True), 1e-5), (Setting("cpu", "bf16"), 0.05), (Setting("cpu", "bf16", True), 0.05)],
)
def test_every_setting_gives_the_same_logits_but_for_rounding(net, setting, tolerance):
    image = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        plain = net(image)
        outputs = setting.forward(setting.place(net), image)
    assert all((ours.float() - theirs).abs().max() < tolerance for ours, theirs in zip(outputs, plain, strict=True))
    assert (outputs[0].dtype == torch.bfloat16) == (setting.precision == "bf16")


def test_place_sets_the_memory_layout(net):
    Setting("cpu", channels_last=True).place(net)
    assert net.node(0, 1).conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_folding_is_for_inference_and_on_a_copy(net):
    image = torch.rand(2, 3, 16, 24)
    plain = probabilities(net.train(), image, setting=Setting("cpu"))
    found = probabilities(net, image, setting=Setting("cpu", channels_last=True, fold=True))
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)
    assert net.training and net.node(0, 1).conv1.weight.is_contiguous()
    assert isinstance(net.node(0, 1).bn1, nn.BatchNorm2d)
    small = Setting("cpu", fold=True).for_inference(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    assert Setting("cpu").for_inference(net) is net and not net.training


def test_one_tensor_becomes_a_list_of_one():
    outputs = Setting("cpu").forward(nn.Conv2d(3, 1, 1), torch.rand(1, 3, 4, 4))
    assert isinstance(outputs, list) and outputs[0].shape == (1, 1, 4, 4)


def test_fast_is_a_setting_of_this_machine():
    fast = Setting.fast("cpu")
    assert fast.device == "cpu" and fast.channels_last and fast.fold and not fast.compile
    assert fast.precision in ("fp32", "bf16")
