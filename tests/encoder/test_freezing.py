import pytest
import torch
from torch import nn

from vggtransfer.encoder.architectures import architecture
from vggtransfer.encoder.freezing import freeze_report, parse_unfreeze
from vggtransfer.encoder.vgg import VGGEncoder
from vggtransfer.errors import OptionError

SMALL = "vgg16_bn_x0_25"


@pytest.mark.parametrize(
    ("arch", "policy", "expected"),
    [
        ("vgg16", "none", ()),
        ("vgg11", "block5", ("conv5_1", "conv5_2")),
        ("vgg16_bn", "conv5_3", ("conv5_3", "bn5_3")),
        ("vgg16_bn", "bn5_3", ("bn5_3",)),
        ("vgg16", "conv4_3-block5", ("conv4_3", "conv5_1", "conv5_2", "conv5_3")),
        ("vgg11", "block4-block5", ("conv4_1", "conv4_2", "conv5_1", "conv5_2")),
        ("vgg11_bn", "conv5_1-conv5_2", ("conv5_1", "bn5_1", "conv5_2", "bn5_2")),
        ("vgg11", "block5, conv1_1", ("conv1_1", "conv5_1", "conv5_2")),
        ("vgg11", "all", tuple(f"conv{place}" for place in ("1_1", "2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2"))),
    ],
)
def test_policies(arch, policy, expected):
    assert parse_unfreeze(policy, architecture(arch)) == expected


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("blok5", "did you mean 'block5'"),
        ("block5-block4", "runs backwards; write 'block4-block5'"),
        ("pool5", "no parameters"),
        ("", "has no block or layer ''"),
        ("-block4", "has no block or layer ''"),
        ("all,block5", "'all' stands alone"),
    ],
)
def test_wrong_policies_are_explained(policy, words):
    with pytest.raises(OptionError, match=words):
        parse_unfreeze(policy, architecture("vgg16"))


def test_frozen_bytes_are_identical_after_training_with_train_called_every_epoch():
    torch.manual_seed(0)
    encoder = VGGEncoder(SMALL, weights=None, unfreeze="block5")
    model = nn.Sequential(encoder, nn.Identity())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        model(torch.rand(4, 3, 32, 32))[-1].square().mean().backward()
        optimizer.step()
    for key, value in encoder.state_dict().items():
        trained = "conv5_" in key or "bn5_" in key
        assert torch.equal(value, before[key]) != trained, key


def test_unfreeze_replaces_the_policy_and_restores_batch_norm():
    encoder = VGGEncoder(SMALL, weights=None, unfreeze="none").train()
    assert encoder.trainable_layers == ()
    assert not encoder.trunk["bn5_3"].training
    encoder.unfreeze("block5")
    assert encoder.trunk["bn5_3"].training
    assert not encoder.trunk["bn4_3"].training
    assert {key.split(".")[0] for key, p in encoder.trunk.named_parameters() if p.requires_grad} == set(
        encoder.trainable_layers
    )
    encoder.unfreeze("block1")
    assert not encoder.trunk["bn5_3"].training
    assert encoder.trunk["conv1_1"].weight.requires_grad


def test_frozen_batch_norm_stays_so_whichever_module_is_told_to_train():
    encoder = VGGEncoder(SMALL, weights=None, unfreeze="block5")
    assert isinstance(encoder.trunk["bn1_1"], nn.BatchNorm2d)
    for told in (encoder, encoder.trunk, encoder.trunk["bn4_3"], *encoder.modules()):
        told.train()
        assert not encoder.trunk["bn4_3"].training
    assert encoder.trunk["bn5_3"].training
    before = encoder.trunk["bn4_3"].running_mean.clone()
    encoder(torch.rand(2, 3, 32, 32))
    assert torch.equal(encoder.trunk["bn4_3"].running_mean, before)
    assert not encoder.eval().trunk["bn5_3"].training


def test_frozen_batch_norm_stays_so_when_synchronised():
    encoder = nn.SyncBatchNorm.convert_sync_batchnorm(VGGEncoder(SMALL, weights=None, unfreeze="block5"))
    encoder.eval().train()
    assert isinstance(encoder.trunk["bn4_3"], nn.SyncBatchNorm)
    assert not encoder.trunk["bn4_3"].training
    assert encoder.trunk["bn5_3"].training
    encoder.unfreeze("none")
    assert not encoder.trunk["bn5_3"].training


def saved_bytes(encoder: VGGEncoder, images: torch.Tensor) -> int:
    """Bytes of activations that autograd keeps for backward; parameters are not counted."""
    parameters = {p.data_ptr() for p in encoder.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters:
            seen[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        keep = encoder(images)
    assert keep
    return sum(seen.values())


def test_frozen_layers_save_no_activations_for_backward():
    images = torch.rand(2, 3, 64, 64)
    saved = {}
    for policy in ("none", "block5", "block4-block5", "all"):
        encoder = VGGEncoder("vgg11", weights=None, unfreeze=policy, layers=["pool5"]).train()
        saved[policy] = saved_bytes(encoder, images)
    assert saved["none"] == 0
    pool4 = 2 * 512 * 4 * 4 * 4
    # Block 5 keeps its input, two activations of the same size, its pooling indices (8 bytes each) and nothing else.
    assert saved["block5"] <= 3 * pool4 + 2 * 512 * 2 * 2 * (4 + 8)
    assert saved["block5"] < saved["block4-block5"] < saved["all"]


def test_freeze_report_counts_what_trains():
    report = freeze_report(VGGEncoder("vgg16_bn", weights=None, unfreeze="conv4_3-block5"))
    assert [row.block for row in report] == ["block1", "block2", "block3", "block4", "block5"]
    assert [row.batch_norm for row in report] == ["frozen", "frozen", "frozen", "mixed", "trained"]
    assert report[0].parameters == 38976
    assert report[0].trainable == 0
    assert report[3].trainable == 512 * 512 * 9 + 512 + 1024
    assert report[4].trainable == report[4].parameters == 3 * (512 * 512 * 9 + 512 + 1024)
    assert report[4].bytes == 4 * report[4].parameters + 3 * (2 * 512 * 4 + 8)
    assert {row.batch_norm for row in freeze_report(VGGEncoder("vgg11", weights=None))} == {"-"}
