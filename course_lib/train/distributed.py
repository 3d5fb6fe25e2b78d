"""Several processes, one training: what torchrun started finds itself here. One process needs none of it."""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function

ANNOUNCED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def start() -> None:
    """Join the process group that torchrun announced; does nothing in an ordinary process.

    A WORLD_SIZE alone, as schedulers of clusters set it, announces none.
    """
    if not all(name in os.environ for name in ANNOUNCED) or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number: 0 is the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait() -> None:
    """Go on when every process has come here."""
    if size() > 1:
        dist.barrier()


def my_part() -> slice:
    """Which elements of a global batch are this process's own."""
    return slice(rank(), None, size())


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, written into the tensor itself."""
    if size() > 1:
        dist.all_reduce(value)
    return value


def share(net: nn.Module) -> None:
    """Start from the first process's weights, and take batch statistics over all processes from now on.

    With `average_gradients` after every backward pass, N processes with a batch of B / N each then do what one
    does with a batch of B. Plain batch norm would see B / N images, which is another network.
    """
    if size() == 1:
        return
    for value in net.state_dict().values():
        dist.broadcast(value, src=0)
    for module in list(net.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, GlobalBatchNorm.of(child))


def average_gradients(net: nn.Module) -> None:
    """Replace every gradient by its mean over the processes: one message with all of them."""
    if size() == 1:
        return
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    mean = total(torch.cat([gradient.flatten() for gradient in gradients])) / size()
    for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes. (nn.SyncBatchNorm does it on GPUs only.)"""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "GlobalBatchNorm":
        """The same layer, weights and statistics shared, counting over all processes."""
        layer = cls(norm.num_features, norm.eps, norm.momentum)
        layer.__dict__.update(norm.__dict__)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape, float32 statistics."""
        if not self.training:
            return super().forward(x)
        x = x.float()
        count = x.numel() / x.shape[1] * size()  # every process has equally many images
        mean = _SumOverAll.apply(x.sum(dim=(0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = _SumOverAll.apply((centred * centred).sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]


class _SumOverAll(Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context, value: Tensor) -> Tensor:
        return total(value.clone())

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return total(gradient.clone())
