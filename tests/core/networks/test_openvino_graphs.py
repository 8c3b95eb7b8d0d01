"""detector_core.networks.openvino_graphs: a compiled network computes what torch computes."""

import timm
import torch

from detector_core.networks.frozen import FeatureNetwork, FrozenNetwork
from detector_core.networks.openvino_graphs import compile_network

SIZE = 64


def test_compiled_backbones_compute_the_features_of_torch() -> None:
    torch.manual_seed(0)
    network = FrozenNetwork([timm.create_model("test_efficientnet") for _ in range(2)], 0.5)
    compute = compile_network(FeatureNetwork(network), SIZE, threads=1)
    images_BCHW = torch.randn(5, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = network.features(images_BCHW)
    first, rest = compute(images_BCHW[:2]), compute(images_BCHW[2:])
    torch.testing.assert_close(torch.cat([first, rest]), expected, rtol=1e-3, atol=1e-3)
    assert expected.std(0).max() > 0.01, "the images differ in their features"
