import pytest
import torch
from torch import nn

from edgefuse.train.models import CNN, MODELS, Nano, build_model


def randomise(model):
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_buffer("running_mean", 0.3 * torch.randn(module.num_features))
            module.register_buffer("running_var", 0.3 + 2.7 * torch.rand(module.num_features))
            nn.init.uniform_(module.weight, 0.3, 2)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


@pytest.mark.parametrize("name", [n for n, kind in MODELS.items() if hasattr(kind, "fuse")])
def test_folded_networks_answer_the_same(name):
    model = randomise(build_model(name))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.rand(2, 2, 24, 36)
    with torch.inference_mode():
        torch.testing.assert_close(model.fuse()(x), model(x), atol=1e-5, rtol=0)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_batch_norms_behind_convolutions_are_gone():
    folded = CNN().fuse()
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == 8


def test_nano_in_grey_levels():
    model = randomise(Nano())
    x = torch.rand(1, 2, 24, 36)
    with torch.inference_mode():
        torch.testing.assert_close(model.fuse(255)(255 * x) / 255, model(x), atol=1e-5, rtol=0)
