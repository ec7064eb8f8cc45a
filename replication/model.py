"""The networks of the paper: MPReLU, the subnetwork, the deep chain, and the shallow network of [22].

All networks map an image batch ``(N, C, H, W)`` in [0, 1], of any size, to one of the same shape.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replication.files import ReplicationError
from replication.paper import DILATIONS, EVS, KERNELS


class MPReLU(nn.Module):
    """Minus PReLU: αx where x >= 0, x where x < 0 (Eq. 5); arguments as in ``nn.PReLU`` (D22)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = nn.Parameter(torch.full((num_parameters,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to real values ``(N, C, …)``."""
        alpha = self.weight.view([-1] + [1] * (x.dim() - 2))
        return torch.where(x >= 0, alpha * x, x)


ACTIVATIONS = {
    "prelu": nn.PReLU,
    "mprelu": MPReLU,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.25),  # fixed at PReLU's initial α
}


def activation_for(ev: int) -> str:
    """Name of the paper's activation for the subnetwork that infers EV `ev` (Section 5.2)."""
    return "prelu" if ev > 0 else "mprelu"


def _block(inputs: int, outputs: int, kernel: int, dilation: int, activation: str) -> nn.Sequential:
    """(Dilated) convolution, batch normalisation, activation: one block of Section 4.2."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), ACTIVATIONS[activation]())


class SubNetwork(nn.Module):
    """Infers EV ``i ± 1`` from EV ``i`` (Section 4.2, Figure 4; r4 and the range: DEVIATIONS D3).

    Args:
        activation: One of :data:`ACTIVATIONS`; the paper's is that of :func:`activation_for`.
        channels: 3 for RGB at once, 1 for one channel at a time (DEVIATIONS D2).
        kernels: Kernels per layer; the paper has 32.
    """

    def __init__(self, activation: str = "prelu", *, channels: int = 3, kernels: int = KERNELS):
        super().__init__()
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ReplicationError(f"Unknown activation {activation!r}; known are {known}.")
        self.activation, self.channels, self.kernels = activation, channels, kernels
        self.features = nn.ModuleList(
            _block(kernels if layer else channels, kernels, 3, dilation, activation)
            for layer, dilation in enumerate(DILATIONS)
        )
        self.r1 = _block(len(DILATIONS) * kernels, kernels, 1, 1, activation)
        self.r2 = _block(len(DILATIONS) * kernels, kernels, 1, 1, activation)
        self.r3 = _block(kernels, kernels, 3, 1, activation)
        self.r4 = nn.Conv2d(2 * kernels, channels, 1)

    def residual(self, x: Tensor) -> Tensor:
        """The inferred residual, in (-1, 1), for an image batch `x` in [0, 1]."""
        outputs = []
        for block in self.features:
            x = block(x)
            outputs.append(x)
        joined = torch.cat(outputs, 1)
        return torch.tanh(self.r4(torch.cat([self.r1(joined), self.r3(self.r2(joined))], 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Infer the neighbouring exposure; values may leave [0, 1] a little."""
        return x + self.residual(x)


def previous_ev(ev: int) -> int:
    """EV of the image that the subnetwork for EV `ev` reads: one step nearer to 0."""
    return ev - 1 if ev > 0 else ev + 1


def chain_evs(evs: Iterable[int]) -> tuple[int, ...]:
    """EVs in the order of a chain, +1, +2, … then -1, -2, …; ReplicationError for a gap or EV 0."""
    wanted = set(evs)
    for ev in wanted:
        if ev == 0 or previous_ev(ev) not in wanted | {0}:
            raise ReplicationError(f"EVs {sorted(wanted)} are no chain: EV {ev:+d} has no start.")
    return tuple(sorted(wanted, key=lambda ev: (ev < 0, abs(ev))))


class DeepChain(nn.Module):
    """One subnetwork per EV (Section 4.1, Figure 3)."""

    def __init__(self, evs: Iterable[int] = EVS) -> None:
        super().__init__()
        self.evs = chain_evs(evs)
        self.subnetworks = nn.ModuleDict({f"{ev:+d}": SubNetwork(activation_for(ev)) for ev in self.evs})

    def __getitem__(self, ev: int) -> nn.Module:
        return self.subnetworks[f"{ev:+d}"]

    def exposures(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield EV and image batch in the order of the chain; each reads the one before, clamped.

        In evaluation mode the images are clamped and rounded to 8 bits, k/255 (DEVIATIONS D8).
        """
        image = x
        for ev in self.evs:
            image = self[ev]((x if abs(ev) == 1 else image).clamp(0, 1))
            if not self.training:
                image = image.clamp(0, 1).mul_(255).round_().div_(255)
            yield ev, image

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Infer every exposure of the EV 0 batch `x`: EV -> image batch."""
        return dict(self.exposures(x))


class ShallowNetwork(nn.Module):
    """Three convolutions, three deconvolutions, skip connections [22] (Table 2; DEVIATIONS D6).

    `skip`: whether the input is added to the output as well, which the paper does not mention.
    """

    def __init__(self, channels: int = 3, filters: int = 64, *, skip: bool = True) -> None:
        super().__init__()
        self.skip, widths = skip, (channels, filters, filters)
        self.convolutions = nn.ModuleList(nn.Conv2d(n, filters, 3, padding=1) for n in widths)
        self.deconvolutions = nn.ModuleList(
            nn.ConvTranspose2d(filters, n, 3, padding=1) for n in reversed(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map an image batch to an image batch of the same shape."""
        first = F.relu(self.convolutions[0](x))
        second = F.relu(self.convolutions[1](first))
        hidden = F.relu(self.convolutions[2](second))
        hidden = F.relu(self.deconvolutions[0](hidden) + second)
        hidden = F.relu(self.deconvolutions[1](hidden) + first)
        return self.deconvolutions[2](hidden) + (x if self.skip else 0)


class PerChannel(nn.Module):
    """One network of one channel for all colours, one after the other (DEVIATIONS D2)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map an image batch to an image batch of the same shape."""
        return self.network(x.flatten(0, 1)[:, None]).view(x.shape)


def as_prelu(network: SubNetwork) -> SubNetwork:
    """A PReLU subnetwork with the outputs of an MPReLU subnetwork, in training mode, too (D5).

    MPReLU(x) = -PReLU(-x): the first convolution, r4's weights, and every block's bias, β and running
    mean change sign, so every hidden value does; γ and the other weights stay.
    """
    if network.activation != "mprelu":
        raise ReplicationError(f"as_prelu takes an MPReLU subnetwork, not {network.activation!r}.")
    mirror = copy.deepcopy(network)
    mirror.activation = "prelu"
    with torch.no_grad():
        for block in [*mirror.features, mirror.r1, mirror.r2, mirror.r3]:
            for tensor in (block[0].bias, block[1].bias, block[1].running_mean):
                tensor.neg_()
            slope, block[2] = block[2].weight, nn.PReLU(block[2].num_parameters)
            block[2].weight = slope
        mirror.features[0][0].weight.neg_()
        mirror.r4.weight.neg_()
    return mirror


def parameter_count(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
