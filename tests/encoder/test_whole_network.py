"""The networks beside VGG, as the training loop and `compare` use them."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from vggtransfer.encoder.other_networks import build_network, minimum_size
from vggtransfer.encoder.trunk_files import weights_digest
from vggtransfer.encoder.whole_network import WholeNetwork, fetch_pretrained, pretrained_source
from vggtransfer.errors import OptionError, WeightsError
from vggtransfer.training.optimizer import build_optimizer, parameter_groups

OTHERS = ["lenet5", "alexnet", "googlenet", "resnet18", "densenet121"]


@pytest.mark.parametrize(
    ("arch", "minimum"), [("lenet5", 32), ("alexnet", 63), ("googlenet", 15), ("resnet18", 1), ("densenet121", 29)]
)
def test_minimum_size_is_that_of_torchvision(arch, minimum):
    assert minimum_size(arch) == minimum
    if arch != "lenet5":
        sides = torchvision.models.get_model_weights(arch).DEFAULT.meta["min_size"]
        assert sides == (minimum, minimum)


@pytest.mark.parametrize("arch", OTHERS)
def test_blocks_are_everything_but_the_linear_layers(arch):
    with torch.device("meta"):
        network = WholeNetwork(arch, classes=7)
    (block,) = network.blocks()
    linear = [p for m in network.modules() if isinstance(m, nn.Linear) for p in m.parameters()]
    assert sorted(map(id, [*block, *linear])) == sorted(map(id, network.parameters()))
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    assert last.out_features == 7
    groups = parameter_groups(
        network,
        network,
        learning_rate=1.0,
        backbone_learning_rate=0.1,
        layer_decay=0.5,
        weight_decay=0.0,
    )
    assert {group["name"]: group["lr"] for group in groups} == {
        "block1": 0.1,
        "block1_no_decay": 0.1,
        "head": 1.0,
        "head_no_decay": 1.0,
    }
    build_optimizer("muon", groups, momentum=0.9)
    assert {group["name"]: group["use_fallback"] for group in groups}["block1"] is False


def test_pictures_are_normalised_inside():
    network = WholeNetwork("lenet5", classes=3).eval()
    seen = []
    network.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.full((1, 3, 32, 32), 0.5))
    expected = torch.tensor([(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225])
    torch.testing.assert_close(seen[0][0, :, 0, 0], expected)


def test_only_vgg_networks_freeze():
    with pytest.raises(OptionError, match="lenet5 trains as a whole: use 'all'"):
        WholeNetwork("lenet5", classes=3).unfreeze("block5")


def test_lenet5_has_no_pretrained_weights():
    with pytest.raises(WeightsError, match="no pretrained weights of lenet5"):
        WholeNetwork("lenet5", classes=3, weights="default")


def published(arch, monkeypatch, tmp_path):
    """Puts a file of random weights where the download of torchvision's would be kept."""
    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path))
    torch.manual_seed(1)
    network = build_network(arch, in_channels=3)
    tensors = {key: value for key, value in network.state_dict().items() if "num_batches_tracked" not in key}
    return network, tensors, pretrained_source(arch).path.with_suffix(".pth")


def save(tensors, path):
    path.parent.mkdir(parents=True)
    torch.save(tensors, path)


def test_resnet18_takes_torchvisions_weights_and_a_new_output_layer(monkeypatch, tmp_path):
    donor, tensors, path = published("resnet18", monkeypatch, tmp_path)
    save(tensors, path)
    network = WholeNetwork("resnet18", classes=4, weights="default").eval()
    assert network.origin == "torchvision resnet18-f37072fd.pth"
    assert network.digest == weights_digest(tensors)
    donor.fc = network.network.fc
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(network(images), donor.eval()((images - network.mean) / network.std))


def test_alexnet_keeps_its_other_linear_layers(monkeypatch, tmp_path):
    _, tensors, path = published("alexnet", monkeypatch, tmp_path)
    save(tensors, path)
    network = WholeNetwork("alexnet", classes=4, weights="default")
    assert list(network.pretrained_layers) == ["classifier.1", "classifier.4"]
    assert torch.equal(network.network.classifier[4].weight, tensors["classifier.4.weight"])


def test_densenet_is_read_under_its_old_names_and_googlenet_without_auxiliary_heads(monkeypatch, tmp_path):
    _, tensors, path = published("densenet121", monkeypatch, tmp_path)
    old = {}
    for key, value in tensors.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in key:
                key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[key] = value
    assert set(old) != set(tensors)
    save(old, path)
    network = WholeNetwork("densenet121", classes=4, weights="default")
    name = "features.denseblock1.denselayer1.conv2.weight"
    assert torch.equal(network.network.state_dict()[name], tensors[name])

    _, tensors, path = published("googlenet", monkeypatch, tmp_path)
    torch.save({**tensors, "aux1.fc1.weight": torch.zeros(3)}, path)
    network = WholeNetwork("googlenet", classes=4, weights="default").eval()
    assert (network.mean == 0.5).all()
    assert (network.std == 0.5).all()


def test_a_file_of_another_network_is_refused(monkeypatch, tmp_path):
    _, tensors, path = published("resnet18", monkeypatch, tmp_path)
    del tensors["conv1.weight"]
    save(tensors, path)
    with pytest.raises(WeightsError, match="do not fit the network"):
        WholeNetwork("resnet18", classes=4, weights="default")


def test_googlenets_13_million_parameters_count_the_auxiliary_heads():
    with torch.device("meta"):
        with_heads = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
        without = build_network("googlenet", in_channels=3)
    counts = [sum(parameter.numel() for parameter in one.parameters()) for one in (with_heads, without)]
    assert counts == [13_004_888, 6_624_904]


def test_pretrained_weights_are_fetched_once(monkeypatch, tmp_path):
    import hashlib

    from vggtransfer.encoder import whole_network
    from vggtransfer.encoder.weight_sources import WeightSource

    monkeypatch.setenv("VGGTRANSFER_CACHE", str(tmp_path / "cache"))
    server = tmp_path / "server"
    server.mkdir()
    torch.save({"weight": torch.ones(2)}, server / "net.pth")
    monkeypatch.setenv("VGGTRANSFER_TORCHVISION_URL", server.as_uri())
    digest = hashlib.sha256((server / "net.pth").read_bytes()).hexdigest()[:8]
    source = WeightSource("resnet18", "torchvision", "net.pth", digest)
    monkeypatch.setattr(whole_network, "pretrained_source", lambda _: source)
    assert torch.equal(fetch_pretrained("resnet18")["weight"], torch.ones(2))
    (server / "net.pth").unlink()
    assert torch.equal(fetch_pretrained("resnet18")["weight"], torch.ones(2))
