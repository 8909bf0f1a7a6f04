import pytest
import torch
from torch import nn

from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.training.optimizer import build_optimizer, carry_state, parameter_groups


class Net(nn.Module):
    def __init__(self, unfreeze: str) -> None:
        super().__init__()
        self.encoder = VGGEncoder("vgg16_bn_x0_25", weights=None, layers=["pool5"], unfreeze=unfreeze)
        self.old = nn.Linear(128, 8)
        self.new = nn.Linear(8, 3)

    def forward(self, images):
        return self.new(self.old(self.encoder(images)[-1].mean((2, 3))))


def groups_of(net, **changes):
    options = {
        "learning_rate": 1.0,
        "backbone_learning_rate": 0.1,
        "layer_decay": 0.5,
        "weight_decay": 0.3,
        "pretrained_head": net.old.parameters(),
    }
    return {group["name"]: group for group in parameter_groups(net, net.encoder, **{**options, **changes})}


def test_rates_by_part_and_no_decay_for_biases_and_batch_norm():
    net = Net("block4-block5")
    groups = groups_of(net)
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "block4": (pytest.approx(0.05), 0.3),
        "block4_no_decay": (pytest.approx(0.05), 0.0),
        "block5": (pytest.approx(0.1), 0.3),
        "block5_no_decay": (pytest.approx(0.1), 0.0),
        "head_pretrained": (pytest.approx(0.1), 0.3),
        "head_pretrained_no_decay": (pytest.approx(0.1), 0.0),
        "head": (pytest.approx(1.0), 0.3),
        "head_no_decay": (pytest.approx(1.0), 0.0),
    }
    assert len(groups["block5"]["params"]) == 3
    assert len(groups["block5_no_decay"]["params"]) == 9


@pytest.mark.parametrize("policy", ["none", "block5", "conv5_3", "all"])
def test_optimizer_gets_exactly_the_trainable_parameters(policy):
    net = Net(policy)
    held = [id(parameter) for group in groups_of(net).values() for parameter in group["params"]]
    trainable = [id(parameter) for parameter in net.parameters() if parameter.requires_grad]
    assert sorted(held) == sorted(trainable)
    assert (len(trainable) == 4) == (policy == "none")


def test_momenta_survive_a_change_of_policy():
    net = Net("block5")
    first = build_optimizer("adamw", list(groups_of(net).values()), momentum=0.9)
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    first.step()
    net.encoder.unfreeze("block4-block5")
    second = build_optimizer("adamw", list(groups_of(net).values()), momentum=0.9)
    carry_state(first, second)
    assert second.state[net.new.weight]["exp_avg"] is first.state[net.new.weight]["exp_avg"]
    assert net.encoder.trunk["conv4_1"].weight not in second.state
    assert first.param_groups[0]["betas"] == (0.9, 0.999)


def test_sgd_is_nesterov():
    assert build_optimizer("sgd", list(groups_of(Net("none")).values()), momentum=0.9).defaults["nesterov"] is True


def test_muon_orthogonalises_the_steps_of_convolutions_and_leaves_the_rest_to_adam():
    torch.manual_seed(0)
    net = Net("block5")
    groups = list(groups_of(net, weight_decay=0.0).values())
    optimizer = build_optimizer("muon", groups, momentum=0.9)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    net(torch.rand(2, 3, 32, 32)).square().sum().backward()
    weight = net.encoder.trunk["conv5_3"].weight
    left, _, right = torch.linalg.svd(torch.randn(128, 1152), full_matrices=False)
    weight.grad = (left @ torch.diag(torch.logspace(0, -1.5, 128)) @ right).reshape(weight.shape)
    optimizer.step()
    values = torch.linalg.svdvals((before["encoder.trunk.conv5_3.weight"] - weight.detach()).flatten(1))
    assert values.max() / values.min() < 2  # of the gradient: 32
    for name, rate in (("encoder.trunk.bn5_3.bias", 0.1), ("old.weight", 0.1), ("new.weight", 1.0)):
        moved = (net.get_parameter(name).detach() - before[name]).abs()
        moved = moved[moved > 0]
        # The first step of Adam is the rate itself; the Nesterov momentum adds beta1 of it.
        torch.testing.assert_close(moved, torch.full_like(moved, 1.9 * rate), rtol=1e-2, atol=0)
