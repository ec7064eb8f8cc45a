"""Figure 4 and Section 4.2: the subnetwork."""

import torch

from replication import paper
from replication.model import SubNetwork
from replication.report.drawings import subnetwork_figure
from tests.paper.conftest import drawn


@torch.no_grad()
def test_seven_blocks_two_paths_and_a_residual_through_tanh():
    network, image = SubNetwork().eval(), torch.rand(1, 3, 20, 31)
    blocks = [block[0] for block in network.features]
    layers = [*blocks, network.r1[0], network.r2[0], network.r3[0], network.r4]
    shapes = [(3, 32, 3)] + [(32, 32, 3)] * 6 + [(224, 32, 1)] * 2 + [(32, 32, 3), (64, 3, 1)]
    assert [(n.in_channels, n.out_channels, n.kernel_size[0]) for n in layers] == shapes
    assert tuple(n.dilation[0] for n in blocks) == paper.DILATIONS == (1, 1, 2, 3, 5, 8, 13)
    network.r4.weight.zero_()
    torch.testing.assert_close(network(image), image + network.r4.bias.tanh().view(3, 1, 1))


def test_receptive_field_measured_by_gradient():
    hidden = image = torch.rand(1, 3, 101, 101, requires_grad=True)
    for block in SubNetwork("mprelu").eval().features:
        hidden = block(hidden)
    hidden[0, :, 50, 50].sum().backward()
    for places in image.grad[0].abs().sum(0).nonzero().T:
        assert places.max() - places.min() + 1 == paper.RECEPTIVE_FIELD == 67


def test_drawing():
    text = "\n".join(drawn(subnetwork_figure(SubNetwork("mprelu"))))
    assert [int(part.split("\n")[0]) for part in text.split("dil. ")[1:]] == [*paper.DILATIONS]
    for part in ("r1 1×1", "r2 1×1", "r3 3×3", "r4 1×1", "tanh", "224 ch", "64 ch", "MPReLU"):
        assert text.count(part) == 1, part
