"""Figure 3: six subnetworks infer EV ±1, ±2, ±3 one after the other; Debevec's method merges."""

import torch

from replication import paper
from replication.model import DeepChain
from replication.report.drawings import chain_figure
from tests.paper.conftest import drawn


@torch.no_grad()
def test_each_subnetwork_continues_from_the_image_before_it():
    network, photo = DeepChain(), torch.rand(1, 3, 24, 24)  # in training, images are not rounded
    images = network(photo)
    assert tuple(images) == network.evs == paper.EVS == (1, 2, 3, -1, -2, -3)
    for ev, image in images.items():
        before = photo if abs(ev) == 1 else images[ev - 1 if ev > 0 else ev + 1]
        torch.testing.assert_close(image, network[ev](before.clamp(0, 1)))
        assert network[ev].activation == ("prelu" if ev > 0 else "mprelu")


def test_drawing():
    texts = drawn(chain_figure(DeepChain()))
    for part, count in {"subnetwork": 6, "MPReLU": 3, "EV 0": 1, "Debevec": 1}.items():
        assert sum(part in text for text in texts) == count, part
    inferred = [text.split("\n")[1] for text in texts if text.startswith("inferred")]
    assert inferred == [f"EV {ev:+d}" for ev in paper.EVS]
