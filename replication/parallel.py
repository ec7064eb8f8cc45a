"""Training in several processes, started by torchrun: each takes its share of every batch.

Gradients are averaged and batch normalisation sees the whole batch, so that any number of processes
gives the weights that one process gives, up to rounding. Without torchrun nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from replication.files import ReplicationError


def size() -> int:
    """Number of processes that train together; 1 without :func:`group`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; process 0 writes, prints and decides."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def group(device: str, seconds: float = 600) -> Iterator[str]:
    """Join the processes that torchrun started, if it did; gives this process's device.

    Parameters
    ----------
    device
        ``"cpu"`` (the processes talk through gloo) or ``"cuda"`` (nccl; each takes its own GPU).
    seconds
        How long a process waits for the others before it gives up.

    Raises
    ------
    ReplicationError
        If the others cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    backend = "gloo"
    if torch.device(device).type == "cuda":
        backend, device = "nccl", f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    _told(dist.init_process_group, backend, timeout=timedelta(seconds=seconds))
    try:
        yield device
    finally:
        dist.destroy_process_group()


def _told(collective: Callable, *arguments: Any, **options: Any) -> None:
    """Run a collective operation; what goes wrong in it is told in one sentence."""
    try:
        collective(*arguments, **options)
    except (RuntimeError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ReplicationError(
            f"Process {os.environ.get('RANK', rank())} of the training lost the others, "
            f"one of which may have failed: {first.rstrip('.')}."
        ) from error


def from_first(make: Callable[..., Any], *arguments: Any) -> Any:
    """What `make` returns in process 0, in every process; a ReplicationError is raised in all, too."""
    if size() == 1:
        return make(*arguments)
    made: list[Any] = [None, None]
    if rank() == 0:
        try:
            made[0] = make(*arguments)
        except ReplicationError as error:
            made[1] = str(error)
    _told(dist.broadcast_object_list, made)
    if made[1] is not None:
        raise ReplicationError(made[1])
    return made[0]


def check_same(what: str, value: Any) -> None:
    """Raise ReplicationError in every process if `value` is not the same in all of them."""
    if size() > 1:
        values = [None] * size()
        _told(dist.all_gather_object, values, value)
        if any(one != values[0] for one in values):
            raise ReplicationError(f"The processes differ in {what}.")


def share(batch: Tensor | None) -> Tensor | None:
    """Part of the first dimension that is this process's; the whole in one process."""
    return None if batch is None else batch.chunk(size())[rank()]


def average(parameters: Iterable[nn.Parameter], values: Tensor) -> Tensor:
    """Average the gradients, in place, and `values` over the processes, in one exchange."""
    if size() == 1:
        return values
    tensors = [parameter.grad for parameter in parameters] + [values]
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    _told(dist.all_reduce, flat)
    flat /= size()
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors[:-1], parts, strict=False):
        tensor.copy_(part.view(tensor.shape))
    return parts[-1].view(values.shape)


class _Normalise(torch.autograd.Function):
    """Batch normalisation by statistics of all processes' pixels, of which this one has a share."""

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
    ):
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps = eps
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, mean, var = ctx.saved_tensors
        # as if mean and variance were constants …
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        # … less what flows through them: a multiple of x and a level, from sums over all pixels
        sums = torch.stack([grad_weight, grad_bias])
        _told(dist.all_reduce, sums)
        along, level = sums / (size() * x.numel() / x.shape[1])
        inverse = torch.rsqrt(var + ctx.eps)
        slope = weight * inverse.square() * along
        level = weight * inverse * level - slope * mean
        shape = (1, -1, *[1] * (x.ndim - 2))
        grad_x = (grad_x - x * slope.view(shape) - level.view(shape)).to(x.dtype)
        return grad_x, grad_weight, grad_bias, None, None, None


class BatchNorm2d(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d``; in several processes its statistics are those of the whole batch.

    Takes equal shares of the batch; ``torch.nn.SyncBatchNorm`` does the same on GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape ``(N, C, H, W)``."""
        if size() == 1 or not self.training:
            return super().forward(x)
        return self._shared(x)

    @torch.compiler.disable
    def _shared(self, x: Tensor) -> Tensor:
        values = x.detach()
        if values.dtype == torch.bfloat16:
            values = values.float()  # as torch's own normalisation does
        own = torch.stack(torch.ops.aten.batch_norm_update_stats(values, None, None, 0.0))
        every = [torch.empty_like(own) for _ in range(size())]
        _told(dist.all_gather, every, own)
        means, variances = torch.stack(every).unbind(1)
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)
        pixels = size() * x.numel() / x.shape[1]
        for running, now in (
            (self.running_mean, mean),
            (self.running_var, var * (pixels / (pixels - 1))),
        ):
            running.mul_(1 - self.momentum).add_(now, alpha=self.momentum)
        self.num_batches_tracked += 1
        return _Normalise.apply(x, self.weight, self.bias, mean, var, self.eps)
