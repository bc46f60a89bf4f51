import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgefuse.train.models import CNN, MODELS, Nano, build_model
from edgefuse.train.models.folding import (
    convolution,
    into_phases,
    pad_channels,
    shuffle,
    weights,
)
from edgefuse.train.models.transformer import FoldedGate, GatedMLP


def randomise(model, seed=3):
    """Give a model what training would: batch norms with statistics, and no weight that is still 0 or 1."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_buffer("running_mean", 0.3 * torch.randn(module.num_features))
            module.register_buffer("running_var", 0.3 + 2.7 * torch.rand(module.num_features))
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.3, 2)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def inputs(size):
    """A random image, and one that is flat in one source and has an edge in the other."""
    torch.manual_seed(4)
    x = torch.rand(2, 2, *size)
    x[1, 0] = 1
    x[1, 1] = (torch.arange(size[1]) > 1).float()
    return x


@pytest.mark.parametrize("size", [(8, 16), (16, 16), (24, 40), (56, 48)])
@pytest.mark.parametrize("name", MODELS)
def test_folded_networks_answer_the_same(name, size):
    model = randomise(build_model(name))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = inputs(size)
    with torch.inference_mode():
        folded, expected = model.reparameterize()(x), model(x)
    torch.testing.assert_close(folded, expected, atol=3e-5, rtol=0)
    assert expected.std() > 0.01
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_nothing_is_left_to_shuffle_or_to_concatenate_layer_by_layer():
    folded = CNN().reparameterize()
    kinds = {type(module) for module in folded.modules()}
    assert not kinds & {nn.PixelShuffle, nn.PixelUnshuffle, nn.GroupNorm}
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == 12


def test_nano_in_grey_levels():
    model = randomise(Nano())
    x = torch.rand(1, 2, 24, 40)
    with torch.inference_mode():
        torch.testing.assert_close(model.reparameterize(255.0)(255 * x) / 255, model(x), atol=1e-5, rtol=0)


# --- the rearrangements one by one, in double precision


@pytest.mark.parametrize("s", [2, 3])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_convolutions_into_phases(s, k):
    torch.manual_seed(5)
    full, weight = torch.randn(2, 3, 4 * s, 5 * s).double(), torch.randn(4, 3, k, k).double()
    expected = F.pixel_unshuffle(F.conv2d(full, weight, padding=k // 2), s)
    torch.testing.assert_close(F.conv2d(full, into_phases(weight, s), stride=s, padding=k // 2), expected)


def test_shuffling():
    x = torch.randn(2, 12, 3, 5)
    assert torch.equal(shuffle(x), F.pixel_shuffle(x, 2))


def test_channels_of_zeros():
    weight, x = torch.randn(3, 2, 3, 3), torch.randn(1, 2, 6, 7)
    conv = convolution(pad_channels(weight, 8, 5, at=(4, 1)))
    answer = conv(F.pad(x, (0, 0, 0, 0, 1, 2), value=9.0))
    torch.testing.assert_close(answer[:, 4:7], F.conv2d(x, weight, padding=1))
    assert answer.abs().sum((0, 2, 3)).nonzero().flatten().tolist() == [4, 5, 6]


@pytest.mark.parametrize("channels", [2, 20])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 7)])
def test_a_line_of_pixels_on_a_wider_map(channels, size):
    torch.manual_seed(6)
    mlp = GatedMLP(channels, 24).eval()
    with torch.inference_mode():
        nn.init.uniform_(weights(mlp.linear1)[1], 1, 2)  # so that the MLP makes something of zeros
        x = torch.randn(2, channels, *size)
        folded = FoldedGate(mlp)
        torch.testing.assert_close(folded(x)[..., 1:-1], mlp(x), atol=1e-5, rtol=0)
        ones = folded.linear1(torch.ones(1, channels + folded.extra, 1, 1))
    assert ones.max() < -7.9
    assert not F.gelu(ones).any(), "exactly silent"
    others, silent = folded.linear1.weight.detach().abs().split((channels, folded.extra), 1)
    assert silent.max() < 24 / folded.extra, "an int8 kernel keeps steps for the others"
    assert others.max() > 0.1
