"""The same functions as in :mod:`replication.model`, computed faster; nothing here is in the paper."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_eval

from replication.files import ReplicationError
from replication.model import MPReLU, PerChannel, SubNetwork, as_prelu
from replication.paper import DILATIONS

_TINY = 1.2e-38  # a normal number in float32, bfloat16 and float64


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """Device of a name, cpu, cuda or cuda:N, by default a GPU where there is one; others raise."""
    gpus = torch.cuda.device_count()
    if name is None:
        return torch.device("cuda" if gpus else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(name)):
        raise ReplicationError(f"Unknown device {str(name)!r}; known are cpu, cuda and cuda:N.")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ReplicationError(f"Device {name} is absent: {gpus} GPUs are here; cpu is an option.")
    return device


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in full float32 on a GPU, too: convolutions and products without TF32."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes in bfloat16 natively; elsewhere it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class _Slope(torch.autograd.Function):
    """PReLU, or MPReLU (`above`), whose backward pass needs no gradient of α of the image's size."""

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, above: bool) -> Tensor:
        ctx.save_for_backward(x, alpha := alpha.to(x.dtype))
        ctx.above = above
        return F.prelu(x.neg(), alpha).neg_() if above else F.prelu(x, alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, alpha = ctx.saved_tensors
        # one pass, where a mask would take three; the threshold puts x = 0 on the side of α
        scaled = torch.ops.aten.threshold_backward(grad, x, -_TINY if ctx.above else 0)
        if not ctx.above:
            torch.sub(grad, scaled, out=scaled)
        several = alpha.numel() > 1
        factor = (alpha.view(-1, *[1] * (x.ndim - 2)) if several else alpha) - 1
        grad_x = torch.addcmul(grad, scaled, factor)
        product = scaled.mul_(x)
        if several:
            return grad_x, product.sum([d for d in range(x.ndim) if d != 1]), None
        return grad_x, product.sum().view(1), None  # in bfloat16, too, the sum runs in float32


def activate(activation: nn.Module, x: Tensor) -> Tensor:
    """Apply an activation of :data:`replication.model.ACTIVATIONS`, with a cheaper backward pass."""
    above = isinstance(activation, MPReLU)
    if not isinstance(activation, MPReLU | nn.PReLU):
        return activation(x)
    if torch.compiler.is_compiling():
        return -F.prelu(-x, activation.weight) if above else F.prelu(x, activation.weight)
    return _Slope.apply(x, activation.weight, above)


def _affine(block: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Weights and bias of a block's convolution, times its normalisation where that is fixed."""
    (weight, bias), norm = block[0].parameters(), block[1]
    if norm.training:
        return weight, bias
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return weight * scale.view(-1, 1, 1, 1), (bias - norm.running_mean) * scale + norm.bias


def _finish(block: nn.Sequential, x: Tensor) -> Tensor:
    """What a block does after the convolution by :func:`_affine`."""
    return activate(block[2], block[1](x) if block[1].training else x)


def _run(block: nn.Sequential, x: Tensor) -> Tensor:
    padding, dilation = block[0].padding, block[0].dilation
    return _finish(block, F.conv2d(x, *_affine(block), padding=padding, dilation=dilation))


class _Training(nn.Module):
    """A subnetwork with the same parameters; r1 and r2 read their 224 channels once."""

    def __init__(self, network: SubNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        network, hidden, outputs = self.network, x, []
        for block in network.features:
            hidden = _run(block, hidden)
            outputs.append(hidden)
        weights, biases = zip(_affine(network.r1), _affine(network.r2), strict=True)
        both = F.conv2d(torch.cat(outputs, 1), torch.cat(weights), torch.cat(biases))
        one, two = (half.contiguous(memory_format=torch.channels_last) for half in both.chunk(2, 1))
        paths = _finish(network.r1, one), _run(network.r3, _finish(network.r2, two))
        return x + torch.tanh(network.r4(torch.cat(paths, 1)))


def for_training(network: nn.Module) -> nn.Module:
    """A faster module with the parameters of a plain subnetwork; other modules as they are."""
    if isinstance(network, PerChannel):
        return PerChannel(for_training(network.network))
    return _Training(network) if isinstance(network, SubNetwork) else network


class _Inference(nn.Module):
    """Normalisation is folded, activations work in place, r1 and r2 grow feature by feature."""

    @torch.no_grad()
    def __init__(self, network: SubNetwork) -> None:
        super().__init__()
        network = as_prelu(network) if network.activation == "mprelu" else copy.deepcopy(network)
        blocks = [*network.eval().features, network.r1, network.r2, network.r3]
        folded = [fuse_conv_bn_eval(block[0], block[1]) for block in blocks]
        self.features, (r1, r2, self.r3) = nn.ModuleList(folded[: len(DILATIONS)]), folded[-3:]
        self.r4, self.kernels = network.r4, network.kernels
        below = network.r4.weight.new_tensor([[-1.0]])
        self.slopes = [-block[2](below).item() for block in blocks]  # above 0, it is 1
        self.register_buffer("joined_weight", torch.cat([r1.weight, r2.weight]).flatten(1).t())
        self.register_buffer("joined_bias", torch.cat([r1.bias, r2.bias]))
        self.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        joined = self.joined_bias.expand(height * width, -1).clone()
        hidden = x.contiguous(memory_format=torch.channels_last)
        weights = self.joined_weight.split(self.kernels)
        for convolution, slope, weight in zip(self.features, self.slopes, weights, strict=False):
            hidden = F.leaky_relu_(convolution(hidden), slope)
            joined.addmm_(hidden.permute(0, 2, 3, 1).reshape(-1, self.kernels), weight)
        del hidden
        one, two = (
            F.leaky_relu_(part, slope).view(1, height, width, -1).permute(0, 3, 1, 2)
            for part, slope in zip(joined.split(self.kernels, 1), self.slopes[-3:-1], strict=True)
        )
        two = F.leaky_relu_(self.r3(two), self.slopes[-1])
        return torch.tanh_(self.r4(torch.cat([one, two], 1))).add_(x)


def for_inference(network: nn.Module) -> nn.Module:
    """A fast copy for ``(1, 3, H, W)`` float32 in [0, 1], not clamped, in evaluation mode.

    Agrees with the subnetwork to the rounding of float32; other modules are only copied.
    """
    return _Inference(network) if isinstance(network, SubNetwork) else copy.deepcopy(network).eval()
