"""Several processes that train one network: torch.distributed where it was set up."""

import torch
from torch import Tensor, nn


def rank_and_size() -> tuple[int, int]:
    """Rank of this process, and the number of processes that train one network."""
    group = torch.distributed
    if group.is_available() and group.is_initialized():
        return group.get_rank(), group.get_world_size()
    return 0, 1


def all_reduce(values: Tensor) -> None:
    """Sum over the processes, in place."""
    if rank_and_size()[1] > 1:
        torch.distributed.all_reduce(values)


def broadcast_buffers(module: nn.Module) -> None:
    """Give all processes the running statistics of the first one."""
    if rank_and_size()[1] > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)
