"""How do several processes, each with a device of its own, work as if they were one?

`torchrun --nproc-per-node 4 -m oscillab qat ...` starts them; each finds the others here. What they tell each other
beside gradients is small and goes over the CPU (gloo): sums of counts, a loss, a wish to stop. Process 0 leads: it alone
calibrates, records, judges, writes files and speaks.
"""

import logging
import os
import warnings
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
from torch import distributed, nn

log = logging.getLogger(__name__)


class Group:
    """This process, `rank` (from 0), among the `count` that work together; by default one alone."""

    def __init__(self, rank=0, count=1):
        self.rank, self.count = rank, count

    @property
    def leader(self):
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def total(self, values):
        """The sums over all processes, as floats, of a list of numbers."""
        return self._reduced(values, "SUM")

    def least(self, value):
        """The smallest of all processes' numbers, a float."""
        return self._reduced([value], "MIN")[0]

    def gathered(self, item):
        """Every process's `item`, in the order of ranks, for the leader; None for the others."""
        if self.count == 1:
            return [item]
        items = [None] * self.count if self.leader else None
        distributed.gather_object(item, items)
        return items

    def from_leader(self, item):
        """The leader's `item`, for every process."""
        if self.count == 1:
            return item
        items = [item]
        distributed.broadcast_object_list(items)
        return items[0]

    def with_leaders_state(self, model):
        """The model, in place with the leader's parameters, buffers and quantizers' limits, which it has on the CPU."""
        if self.count == 1:
            return model
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for tensor in state.values():
            distributed.broadcast(tensor, src=0)
        model.load_state_dict(state)
        return model

    def share(self, batches):
        """`batches` with this process's pictures of each batch alone; see `Batches.part`."""
        return batches if self.count == 1 else batches.part(self.rank, self.count)

    def wait(self):
        """None, once every process has come here."""
        if self.count > 1:
            distributed.barrier()

    def _reduced(self, values, how):
        if self.count == 1:
            return [float(value) for value in values]
        values = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(values, getattr(distributed.ReduceOp, how))
        return values.tolist()


def group():
    """The `Group` of this process: those inside of `joined`, or one alone."""
    if distributed.is_available() and distributed.is_initialized():
        return Group(distributed.get_rank(), distributed.get_world_size())
    return Group()


@contextmanager
def joined(device="cpu", *, timeout=600):
    """The `Group` of the processes that torchrun started, within the block; one alone without torchrun.

    `device`: "cpu", or "cuda" for a GPU each. `timeout`: seconds to wait for the others. Raises ConnectionError, in one
    line, where they cannot be reached any more, ValueError where there are too few devices.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        yield Group()
        return
    rank = int(os.environ["RANK"])
    _take_device(device)
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    try:
        distributed.init_process_group(backend, timeout=timedelta(seconds=timeout))
        yield group()
        distributed.destroy_process_group()
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        raise ConnectionError(
            f"process {rank} of {count} lost the others: one has ended or has not answered for {timeout} s; what ended it "
            f"stands with its own messages ({str(error).splitlines()[0][:200]})"
        ) from error


def is_lost_connection(error):
    """Whether a RuntimeError comes from the connection to other processes, and not from a mistake in the code."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def _take_device(device):
    """None; makes "cuda" mean this process's own GPU."""
    if device == "cpu":
        return
    if device != "cuda":
        raise ValueError(
            f"device must be cpu or cuda (each process takes a GPU of its own) under torchrun, got {device}"
        )
    local, here = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local >= here:
        raise ValueError(f"torchrun started process {local + 1} on a machine with {here} GPUs: lower --nproc-per-node")
    torch.cuda.set_device(local)


@contextmanager
def network(model, members, *, sync_bn=True):
    """What to call in place of `model` while it trains, so that all processes have the gradient of the mean of theirs.

    `sync_bn`: batch norm sees the pictures of all processes; otherwise each its own, and the leader's running statistics
    are the ones that count.
    """
    if members.count == 1:
        yield model
        return
    from oscillab.train.sync_bn import synced_bn

    with warnings.catch_warnings(), synced_bn(model) if sync_bn else nullcontext():
        warnings.filterwarnings(
            "ignore", message="Grad strides do not match"
        )  # of 1 x 1 convolutions, where all are equal
        yield nn.parallel.DistributedDataParallel(model)  # before each forward all take the leader's buffers
