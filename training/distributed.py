"""One process or many: who this one is, and the few words that processes exchange.

    torchrun --nproc-per-node 8 -m training.train -c CONFIG

`torchrun` says by its environment variables how many there are. One process alone starts nothing: every function here
then gives back what it was given.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from training.data.samplers import Share

Value = TypeVar("Value")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Process:
    """This process among all.

    Attributes:
        rank: 0 to count - 1; 0 writes files and speaks.
        count: of processes.
        device: where its tensors live.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> Share:
        """Its part of each batch."""
        return Share(self.rank, self.count)


@contextmanager
def started(device: str = "auto") -> Iterator[Process]:
    """Join the other processes, if there are any, for as long as the block runs.

    Args:
        device: cpu, cuda, or auto, which is cuda where there is one. With cuda each process takes the GPU of its
            number on its machine and they speak by NCCL, else by gloo.
    Raises:
        ValueError: cuda was asked for and there is none, or there are fewer than processes on this machine.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: found no GPU that PyTorch can use, wanted one for cuda; say cpu or auto.")
    uses_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    number, n_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if uses_gpu and number >= n_gpus:
        raise ValueError(
            f"device: found {n_gpus} GPU(s), wanted one for each process of this machine; start as many processes."
        )
    place = torch.device("cuda", number) if uses_gpu else torch.device("cpu")
    if uses_gpu:
        torch.cuda.set_device(place)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Process(0, 1, place)
        return
    distributed.init_process_group("nccl" if uses_gpu else "gloo")
    try:
        yield Process(distributed.get_rank(), count, place)
    finally:
        distributed.destroy_process_group()


def wrapped(network: nn.Module, process: Process) -> nn.Module:
    """The network such that each backward pass averages gradients over all processes."""
    if process.count == 1:
        return network
    return DistributedDataParallel(
        network, device_ids=[process.device] if process.device.type == "cuda" else None
    )


def share_buffers(network: nn.Module) -> None:
    """Give each process the first one's buffers, in place; every process has to call it.

    Gradients keep weights equal; the running means of normalisations each process has from its own last step.
    """
    if distributed.is_initialized():
        for buffer in network.buffers():
            distributed.broadcast(buffer, src=0)


def mean_over_processes(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all processes; each gets it. No gradient goes through."""
    if not distributed.is_initialized():
        return tensor
    summed = tensor.detach().clone()
    distributed.all_reduce(summed)
    return summed / distributed.get_world_size()


def gathered(value: Value) -> list[Value]:
    """What each process has to say, in the order of their ranks; each gets it. Any value that can be pickled."""
    if not distributed.is_initialized():
        return [value]
    values: list[Value | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]
