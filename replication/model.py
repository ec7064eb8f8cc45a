"""The networks of the paper: MPReLU, the subnetwork, the deep chain, and the shallow network of [22].

All networks map an image batch ``(N, C, H, W)``, float in [0, 1], to an image batch of the same shape,
and are fully convolutional: any height and width of at least one pixel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from replication.files import ReplicationError
from replication.paper import DILATIONS, EVS, KERNELS
from replication.parallel import BatchNorm2d

_TINY = 1.2e-38  # a normal number in float32, bfloat16 and float64


class _Slope(torch.autograd.Function):
    """PReLU or MPReLU with a backward pass that never materialises a full-size gradient of α."""

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, above: bool) -> Tensor:
        """Multiply by `alpha` what is positive (`above`, Eq. 5) or what is negative (PReLU)."""
        alpha = alpha.to(x.dtype)
        ctx.save_for_backward(x, alpha)
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
        per_channel = alpha.view(-1, *[1] * (x.ndim - 2)) if alpha.numel() > 1 else alpha
        grad_x = torch.addcmul(grad, scaled, per_channel - 1)
        product = scaled.mul_(x)
        if alpha.numel() > 1:
            grad_alpha = product.sum([d for d in range(x.ndim) if d != 1])
        else:
            grad_alpha = product.sum().view(1)  # in bfloat16, too, the sum runs in float32
        return grad_x, grad_alpha, None


class MPReLU(nn.Module):
    r"""Minus PReLU: :math:`\alpha x` where :math:`x \ge 0`, :math:`x` where :math:`x < 0`.

    It equals ``-PReLU(-x)``: a network with MPReLU in every block is a network with PReLU whose
    weights have other signs (:func:`as_prelu` converts one into the other, and DEVIATIONS D5 says what
    that means for Table 3).

    Parameters
    ----------
    num_parameters
        1 (one α for all channels) or the number of channels, as in ``torch.nn.PReLU``.
    init
        Initial α; 0.25 is the value of PReLU [11] (DEVIATIONS D22).

    Notes
    -----
    Source: paper, Section 5.2, Eq. 5. Scriptable; the scripted form differentiates ``-PReLU(-x)``.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = nn.Parameter(torch.full((num_parameters,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to ``x`` of shape ``(N, C, …)``; any real values."""
        if torch.jit.is_scripting() or torch.compiler.is_compiling():
            return -F.prelu(-x, self.weight)
        return _Slope.apply(x, self.weight, True)

    def extra_repr(self) -> str:
        """Show the number of α in ``print(model)``."""
        return f"num_parameters={self.num_parameters}"


class PReLU(nn.PReLU):
    """``torch.nn.PReLU`` with a backward pass that takes a fifth of the time on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to ``x`` of shape ``(N, C, …)``; any real values."""
        if torch.jit.is_scripting() or torch.compiler.is_compiling():
            return F.prelu(x, self.weight)
        return _Slope.apply(x, self.weight, False)


ACTIVATIONS: dict[str, type[nn.Module] | object] = {
    "prelu": PReLU,
    "mprelu": MPReLU,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.25),
}
"""Activation name -> constructor. ``leaky_relu`` fixes the slope at PReLU's initial 0.25."""


def activation_for(ev: int) -> str:
    """Name of the paper's activation for the subnetwork that infers EV `ev` (Section 5.2)."""
    return "prelu" if ev > 0 else "mprelu"


class _Block(nn.Sequential):
    """Convolution, batch normalisation and activation; see :func:`_block`.

    A normalisation that keeps its statistics is folded into the convolution: the same function and
    the same gradients, without its passes over the image.
    """

    def forward(self, x: Tensor) -> Tensor:
        convolution = self[0]
        padding, dilation = convolution.padding, convolution.dilation
        return self.finish(F.conv2d(x, *self.affine(), padding=padding, dilation=dilation))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Weights and bias of the convolution, times the normalisation where that is fixed."""
        convolution, norm, _ = self
        if norm.training:
            return convolution.weight, convolution.bias
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = convolution.weight * scale.view(-1, 1, 1, 1)
        return weight, (convolution.bias - norm.running_mean) * scale + norm.bias

    def finish(self, x: Tensor) -> Tensor:
        """What follows the convolution by :meth:`affine`."""
        _, norm, activation = self
        return activation(norm(x) if norm.training else x)


def _block(inputs: int, outputs: int, kernel: int, dilation: int, activation: str) -> _Block:
    """(Dilated) convolution, batch normalisation, activation: one block of Section 4.2."""
    padding = dilation * (kernel // 2)
    return _Block(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation),
        BatchNorm2d(outputs),
        ACTIVATIONS[activation](),
    )


class SubNetwork(nn.Module):
    """One link of the chain: EV *i* in, EV *i* ± 1 out (Section 4.2, Figure 4).

    Seven feature-extraction blocks (3×3, dilations 1 1 2 3 5 8 13, receptive field 67), their outputs
    concatenated; reconstruction along two paths, r1 and r2 → r3, concatenated; r4 (1×1, tanh) gives the
    residual, which is added to the input (r4 and the range of the images: DEVIATIONS D3).

    Parameters
    ----------
    activation
        ``"prelu"`` (brighter), ``"mprelu"`` (darker), ``"relu"`` or ``"leaky_relu"``.
    channels
        Image channels: 3 for RGB at once, 1 for one channel at a time (DEVIATIONS D2).
    kernels
        Kernels per layer; the paper has 32.

    Raises
    ------
    ReplicationError
        For an unknown activation.
    """

    def __init__(
        self, activation: str = "prelu", *, channels: int = 3, kernels: int = KERNELS
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ReplicationError(f"Unknown activation {activation!r}; known are {known}.")
        self.activation, self.channels, self.kernels = activation, channels, kernels
        widths = [channels] + [kernels] * len(DILATIONS)
        self.features = nn.ModuleList(
            _block(widths[i], kernels, 3, dilation, activation)
            for i, dilation in enumerate(DILATIONS)
        )
        joined = kernels * len(DILATIONS)
        self.r1 = _block(joined, kernels, 1, 1, activation)
        self.r2 = _block(joined, kernels, 1, 1, activation)
        self.r3 = _block(kernels, kernels, 3, 1, activation)
        self.r4 = nn.Conv2d(2 * kernels, channels, 1)

    def residual(self, x: Tensor) -> Tensor:
        """The inferred residual, in (-1, 1), for an image batch ``x`` in [0, 1]."""
        skips = []
        hidden = x
        for block in self.features:
            hidden = block(hidden)
            skips.append(hidden)
        # r1 and r2 read the same 224 channels: one convolution of both reads them once
        weights, biases = zip(self.r1.affine(), self.r2.affine(), strict=True)
        both = F.conv2d(torch.cat(skips, 1), torch.cat(weights), torch.cat(biases))
        path1, path2 = (
            half.contiguous(memory_format=torch.channels_last) for half in both.chunk(2, 1)
        )
        path2 = self.r3(self.r2.finish(path2))
        return torch.tanh(self.r4(torch.cat([self.r1.finish(path1), path2], 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Infer the neighbouring exposure; not clamped, so values may leave [0, 1] a little."""
        return x + self.residual(x)


def chain_evs(evs: Iterable[int]) -> tuple[int, ...]:
    """EVs in the order in which a chain infers them: +1, +2, … then -1, -2, ….

    Raises
    ------
    ReplicationError
        If an EV is 0 or a link of the chain is missing, e.g. EV +3 without EV +2.
    """
    wanted = set(evs)
    for ev in wanted:
        if ev == 0 or (abs(ev) > 1 and previous_ev(ev) not in wanted):
            raise ReplicationError(
                f"EVs {sorted(wanted)} are no chain: EV {ev:+d} has no link to start from."
            )
    return tuple(sorted(wanted, key=lambda ev: (ev < 0, abs(ev))))


def previous_ev(ev: int) -> int:
    """EV of the image that the subnetwork for EV `ev` takes as its input: one step nearer to 0."""
    return ev - 1 if ev > 0 else ev + 1


class DeepChain(nn.Module):
    """The whole network: one subnetwork per EV, brighter and darker arm (Section 4.1, Figure 3).

    Parameters
    ----------
    evs
        Exposures to infer; the paper's are ±1, ±2, ±3. Longer arms, such as ±4, only need their EVs
        named here: every subnetwork continues the one before it.
    activations
        Overrides, EV -> activation; by default PReLU for brighter and MPReLU for darker EVs.

    Raises
    ------
    ReplicationError
        If a link is missing or an activation unknown.
    """

    def __init__(self, evs: Iterable[int] = EVS, activations: dict[int, str] | None = None) -> None:
        super().__init__()
        self.evs = chain_evs(evs)
        names = {ev: activation_for(ev) for ev in self.evs} | (activations or {})
        self.subnetworks = nn.ModuleDict({f"{ev:+d}": SubNetwork(names[ev]) for ev in self.evs})

    def __getitem__(self, ev: int) -> SubNetwork:
        """Return the subnetwork that infers EV `ev`."""
        return self.subnetworks[f"{ev:+d}"]

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Infer every exposure from the EV 0 batch `x`; each link takes the clamped image before it."""
        images = {0: x}
        for ev in self.evs:
            images[ev] = self[ev](images[previous_ev(ev)].clamp(0, 1))
        del images[0]
        return images


class ShallowNetwork(nn.Module):
    """The comparison of Table 2: three convolutions, three deconvolutions, skip connections [22].

    3×3, 64 filters, ReLU, symmetric additive skips (also from input to output) as in Mao et al. 2016;
    the paper gives only the layer counts (DEVIATIONS D6).

    Parameters
    ----------
    channels, filters
        Image channels and filters per layer.
    """

    def __init__(self, channels: int = 3, filters: int = 64) -> None:
        super().__init__()
        widths = [channels, filters, filters, filters]
        pairs = list(itertools.pairwise(widths))
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.deconvolutions = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 3, padding=1) for a, b in reversed(pairs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map an image batch to an image batch of the same shape."""
        skips = [x]
        hidden = x
        for convolution in self.convolutions:
            hidden = F.relu(convolution(hidden))
            skips.append(hidden)
        skips.pop()
        for deconvolution in self.deconvolutions[:-1]:
            hidden = F.relu(deconvolution(hidden) + skips.pop())
        return self.deconvolutions[-1](hidden) + skips.pop()


class PerChannel(nn.Module):
    """One network for all colours, a channel at a time (DEVIATIONS D2).

    Parameters
    ----------
    network
        Takes and gives images of one channel, e.g. ``SubNetwork(channels=1)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map an image batch to an image batch of the same shape."""
        return self.network(x.flatten(0, 1)[:, None]).view(x.shape)


def as_prelu(network: SubNetwork) -> SubNetwork:
    """The PReLU subnetwork that computes exactly what an MPReLU subnetwork computes.

    Because MPReLU(x) = -PReLU(-x), negating the affine part of each batch normalisation and the weights
    of every convolution that reads a block's output turns one into the other. Evaluation mode only in
    the sense that running statistics are copied; the equality holds in training mode, too.

    Parameters
    ----------
    network
        A subnetwork with ``activation="mprelu"``.

    Returns
    -------
    SubNetwork
        A new subnetwork with ``activation="prelu"`` and the same outputs.

    Raises
    ------
    ReplicationError
        If `network` does not use MPReLU.

    Notes
    -----
    Source: our own observation from Eq. 5; DEVIATIONS D5.
    """
    if network.activation != "mprelu":
        raise ReplicationError(f"as_prelu takes an MPReLU subnetwork, not {network.activation!r}.")
    twin = SubNetwork("prelu", channels=network.channels, kernels=network.kernels)
    twin.load_state_dict(network.state_dict())
    twin.train(network.training)
    with torch.no_grad():
        blocks = [*twin.features, twin.r1, twin.r2, twin.r3]
        for block in blocks:
            block[1].weight.neg_()
            block[1].bias.neg_()
        for convolution in [*(b[0] for b in blocks[1:]), twin.r4]:
            convolution.weight.neg_()
    return twin


def parameter_count(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
