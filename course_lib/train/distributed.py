"""Several processes, one training: what torchrun started finds itself here. One process needs none of it.

Each process takes its part of every batch, and the gradients are averaged. On GPUs batch norm counts over all of them,
so they do what one process does, up to rounding. On CPUs, where torch has no such norm, each process normalises its
own part, as a training with smaller batches would, and the running statistics that are kept are the first one's.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from course_lib.errors import UserError


def start() -> None:
    """Join the processes that torchrun started; does nothing in an ordinary process.
    Raises UserError: what torchrun leaves in the environment is missing or wrong, or the others do not come.
    """
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        try:
            if not 0 <= int(os.environ["RANK"]) < int(os.environ["WORLD_SIZE"]):
                raise ValueError("RANK is not below WORLD_SIZE")
            dist.init_process_group()  # NCCL between GPUs, Gloo between CPUs
        except (KeyError, ValueError, RuntimeError) as problem:
            reason = str(problem).partition("\n")[0]
            raise UserError(
                f"the processes cannot meet ({reason}): start all of them by one torchrun command"
            ) from problem
        if torch.cuda.is_available():
            torch.cuda.set_device(dist.get_node_local_rank())


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


def parallel(net: nn.Module) -> nn.Module:
    """`net` as it trains: from the first process's weights, each gradient the mean over all processes."""
    if size() == 1:
        return net
    if next(net.parameters()).is_cuda:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return DistributedDataParallel(net, static_graph=True)  # so a parameter may lack a gradient: U-Net^e with one head


def share_statistics(net: nn.Module) -> None:
    """Give every process the first one's running means and variances, so that all score the same net."""
    if size() > 1:
        for statistic in net.buffers():
            dist.broadcast(statistic, src=0)
