import pytest
import torch

from vggtransfer.encoder.input_channels import adapt_first_layer
from vggtransfer.encoder.vgg import VGGEncoder

SMALL = "vgg16_bn_x0_25"
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.1, 0.4)


def stored(encoder, path):
    """The encoder's weights in a file, with a mean and std whose channels differ more than ImageNet's."""
    encoder.mean.copy_(torch.tensor(MEAN).view(1, 3, 1, 1))
    encoder.std.copy_(torch.tensor(STD).view(1, 3, 1, 1))
    torch.save(encoder.state_dict(), path)
    return path


def test_a_grey_picture_answers_as_its_rgb_copy(tmp_path):
    torch.manual_seed(0)
    rgb = VGGEncoder(SMALL, weights=None).eval()
    grey = VGGEncoder(SMALL, weights=stored(rgb, tmp_path / "rgb.pth"), in_channels=1).eval()
    images = torch.rand(2, 1, 32, 32)
    # relu2_2 has seen three more convolutions and a pooling: from the border of conv1_1 it is 4 steps away.
    for name, border in (("conv1_1", 1), ("relu2_2", 4)):
        with torch.no_grad():
            ours = grey.features(images, layers=[name])[name]
            theirs = rgb.features(images.expand(-1, 3, -1, -1), layers=[name])[name]
        inside = slice(border, -border)
        torch.testing.assert_close(ours[..., inside, inside], theirs[..., inside, inside], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_file_for_grey_pictures_is_taken_as_it_is(tmp_path):
    grey = VGGEncoder(SMALL, weights=None, in_channels=1).eval()
    torch.save(grey.state_dict(), tmp_path / "grey.pth")
    loaded = VGGEncoder(SMALL, weights=tmp_path / "grey.pth", in_channels=1).eval()
    images = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(loaded(images)[-1], grey(images)[-1])


def test_more_channels_cycle_and_rescale(tmp_path):
    weight, bias = torch.rand(4, 3, 3, 3), torch.rand(4)
    adapted, same = adapt_first_layer(weight, bias, 5, mean=MEAN, std=STD)
    assert torch.allclose(adapted[:, 3], weight[:, 0] * 3 / 5)
    assert torch.allclose(adapted[:, 2], weight[:, 2] * 3 / 5)
    assert torch.equal(same, bias)
    weights = stored(VGGEncoder(SMALL, weights=None), tmp_path / "rgb.pth")
    encoder = VGGEncoder(SMALL, weights=weights, in_channels=5)
    assert encoder.mean.flatten().tolist() == pytest.approx([*MEAN, *MEAN[:2]])
    assert encoder.std.flatten().tolist() == pytest.approx([*STD, *STD[:2]])
    assert encoder(torch.rand(1, 5, 32, 32))[0].shape == (1, 16, 32, 32)
