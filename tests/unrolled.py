"""Depth-4 U-Net and UNet++ written out node by node, from the architecture as it is published.

An independent reference for tests: it shares nothing with `course_lib.grid`, and the names of its parts are the
ones of the widely used PyTorch code. Beside it what tests of nets feed them with.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, kernel_size=3, stride=1, padding=1, bias=True)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, kernel_size=3, stride=1, padding=1, bias=True)
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x):
        x = self.conv1(x)
        x = self.bn1(x)
        x = torch.clamp_min(x, 0)
        x = self.conv2(x)
        x = self.bn2(x)
        return torch.clamp_min(x, 0)


def half(x):
    return F.max_pool2d(x, kernel_size=2, stride=2)


def join(*skips, below):
    return torch.cat((*skips, F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=True)), dim=1)


class UnrolledUNet(nn.Module):
    def __init__(self, widths=(4, 6, 10, 12, 14)):
        super().__init__()
        a, b, c, d, e = widths
        self.conv0_0, self.conv1_0, self.conv2_0 = Block(3, a), Block(a, b), Block(b, c)
        self.conv3_0, self.conv4_0 = Block(c, d), Block(d, e)
        self.conv3_1, self.conv2_2 = Block(d + e, d), Block(c + d, c)
        self.conv1_3, self.conv0_4 = Block(b + c, b), Block(a + b, a)
        self.final = nn.Conv2d(a, 1, 1)

    def forward(self, image):
        row0 = self.conv0_0(image)
        row1 = self.conv1_0(half(row0))
        row2 = self.conv2_0(half(row1))
        row3 = self.conv3_0(half(row2))
        up = self.conv4_0(half(row3))
        up = self.conv3_1(join(row3, below=up))
        up = self.conv2_2(join(row2, below=up))
        up = self.conv1_3(join(row1, below=up))
        up = self.conv0_4(join(row0, below=up))
        return [self.final(up)]


class UnrolledNested(nn.Module):
    def __init__(self, widths=(4, 6, 10, 12, 14), supervised=True):
        super().__init__()
        a, b, c, d, e = widths
        self.conv0_0, self.conv1_0, self.conv2_0 = Block(3, a), Block(a, b), Block(b, c)
        self.conv3_0, self.conv4_0 = Block(c, d), Block(d, e)
        self.conv0_1, self.conv1_1 = Block(a + b, a), Block(b + c, b)
        self.conv2_1, self.conv3_1 = Block(c + d, c), Block(d + e, d)
        self.conv0_2, self.conv1_2, self.conv2_2 = Block(a + a + b, a), Block(b + b + c, b), Block(c + c + d, c)
        self.conv0_3, self.conv1_3 = Block(a + a + a + b, a), Block(b + b + b + c, b)
        self.conv0_4 = Block(a + a + a + a + b, a)
        self.supervised = supervised
        if supervised:
            self.final1, self.final2 = nn.Conv2d(a, 1, 1), nn.Conv2d(a, 1, 1)
            self.final3, self.final4 = nn.Conv2d(a, 1, 1), nn.Conv2d(a, 1, 1)
        else:
            self.final = nn.Conv2d(a, 1, 1)

    def forward(self, image):
        a0 = self.conv0_0(image)
        b0 = self.conv1_0(half(a0))
        c0 = self.conv2_0(half(b0))
        d0 = self.conv3_0(half(c0))
        e0 = self.conv4_0(half(d0))
        d1 = self.conv3_1(join(d0, below=e0))
        c1 = self.conv2_1(join(c0, below=d0))
        c2 = self.conv2_2(join(c0, c1, below=d1))
        b1 = self.conv1_1(join(b0, below=c0))
        b2 = self.conv1_2(join(b0, b1, below=c1))
        b3 = self.conv1_3(join(b0, b1, b2, below=c2))
        a1 = self.conv0_1(join(a0, below=b0))
        a2 = self.conv0_2(join(a0, a1, below=b1))
        a3 = self.conv0_3(join(a0, a1, a2, below=b2))
        a4 = self.conv0_4(join(a0, a1, a2, a3, below=b3))
        if self.supervised:
            return [self.final1(a1), self.final2(a2), self.final3(a3), self.final4(a4)]
        return [self.final(a4)]


def live(net, seed=1):
    """Batch norm with statistics, scales and shifts of its own, as after training: no map fades out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            for shift in (norm.bias, norm.running_mean):
                shift.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.1, 0.4, generator=generator)
    return net.eval()


def picture(*, batch=2, channels=3, size=(16, 32), seed=2):
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(seed))
