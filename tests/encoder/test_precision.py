import torch

from vggtransfer.encoder.precision import autocast, prefers_channels_last


def test_autocast_computes_in_the_type_asked_for():
    device = torch.device("cpu")
    weight = torch.rand(4, 4)
    for compute_type in (torch.float32, torch.bfloat16):
        with autocast(device, compute_type):
            assert (weight @ weight).dtype == compute_type
    assert (weight @ weight).dtype == torch.float32


def test_only_apple_gpus_keep_the_plain_layout():
    assert prefers_channels_last(torch.device("cpu"))
    assert prefers_channels_last(torch.device("cuda", 0))
    assert not prefers_channels_last(torch.device("mps"))
