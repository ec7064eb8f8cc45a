"""The same functions, computed faster."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from replication.model import SubNetwork, as_prelu
from replication.paper import DILATIONS


class InferenceNetwork(nn.Module):
    """A trained subnetwork rewritten for inference: the same function in a third of the memory.

    Batch normalisation is folded into the convolutions, activations work in place, MPReLU becomes PReLU
    (:func:`as_prelu`), and the 1×1 layers r1 and r2 are accumulated feature by feature instead of
    reading a concatenation. Agrees with the subnetwork in evaluation mode to float32 rounding.

    Parameters
    ----------
    network
        Any subnetwork; left unchanged.

    Notes
    -----
    Takes and gives ``(1, C, H, W)`` float32 in ``channels_last`` memory; no gradients.
    """

    def __init__(self, network: SubNetwork) -> None:
        super().__init__()
        network = as_prelu(network) if network.activation == "mprelu" else network
        blocks = [*network.features, network.r1, network.r2, network.r3]
        folded = [fuse_conv_bn_eval(block[0], block[1]) for block in map(_eval, blocks)]
        self.features = nn.ModuleList(folded[: len(DILATIONS)])
        r1, r2, self.r3 = folded[len(DILATIONS) :]
        self.r4 = copy.deepcopy(network.r4)
        self.slopes = [_slope(b[2]) for b in blocks]
        self.kernels = network.kernels
        self.register_buffer("joined_weight", torch.cat([r1.weight, r2.weight]).flatten(1).t())
        self.register_buffer("joined_bias", torch.cat([r1.bias, r2.bias]))
        self.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Infer the neighbouring exposure of one image, not clamped."""
        height, width = x.shape[-2:]
        joined = self.joined_bias.expand(height * width, -1).clone()
        hidden = x.contiguous(memory_format=torch.channels_last)
        weights = self.joined_weight.split(self.kernels)
        for convolution, slope, weight in zip(self.features, self.slopes, weights, strict=False):
            hidden = F.leaky_relu_(convolution(hidden), slope)
            joined.addmm_(hidden.permute(0, 2, 3, 1).reshape(-1, self.kernels), weight)
        del hidden
        path1, path2 = (
            F.leaky_relu_(part, slope).view(1, height, width, -1).permute(0, 3, 1, 2)
            for part, slope in zip(joined.split(self.kernels, 1), self.slopes[-3:-1], strict=True)
        )
        path2 = F.leaky_relu_(self.r3(path2), self.slopes[-1])
        return torch.tanh_(self.r4(torch.cat([path1, path2], 1))).add_(x)


def _eval(block: nn.Sequential) -> nn.Sequential:
    return copy.deepcopy(block).eval()


def _slope(activation: nn.Module) -> float:
    """Slope on the negative side of an activation that is the identity on the positive one."""
    if isinstance(activation, nn.PReLU):
        return activation.weight.item()
    return float(getattr(activation, "negative_slope", 0.0))


# ---- adapter: the old code under its new name, until this module is rewritten ----


def choose_device(name: str | None) -> torch.device:
    """Stand-in for the checked choice of a device."""
    from replication.files import ReplicationError

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ReplicationError(f"Unknown device {name!r}; known are cpu, cuda and cuda:N.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ReplicationError(f"Device {name} is not available here; cpu is.")
    return device
