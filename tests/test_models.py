import numpy as np
import pytest
import torch

from edgefuse.errors import ModelError
from edgefuse.train.models import CNN, MODELS, Nano, build_model, multiple_of, parameter_count


@pytest.mark.parametrize("name", MODELS)
def test_models_keep_the_size_and_learn_everywhere(name):
    torch.manual_seed(0)
    model = build_model(name)
    multiple = multiple_of(model)
    x = torch.rand(2, 2, 6 * multiple, 9 * multiple)
    fused = model(x)
    assert fused.shape == (2, 1, *x.shape[2:])
    fused.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert parameter_count(model) * 4 < 1_000_000


def test_published_sizes():
    assert parameter_count(Nano()) == 55_488
    assert parameter_count(CNN()) == 214_882


def test_the_cnn_answers_as_the_published_one(shared):
    released = torch.load(shared / "paper/checkpoints/CNN.model", weights_only=True)
    golden = np.load(shared / "golden/paper_networks.npz")
    model = CNN().eval()
    # The tensors stand in the same order under other names; linear layers became 1×1 convolutions.
    own = model.state_dict()
    model.load_state_dict(
        {name: value.reshape(own[name].shape) for name, value in zip(own, released.values(), strict=True)}
    )
    with torch.inference_mode():
        answer = model(torch.from_numpy(golden["input"])).numpy()
    assert np.abs(answer - golden["CNN"]).max() < 1e-5


@pytest.mark.parametrize("size", [(16, 16), (20, 36), (64, 48)])
def test_a_folded_nano_answers_the_same(size):
    torch.manual_seed(1)
    model = Nano().eval()
    x = torch.rand(2, 2, *size)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        torch.testing.assert_close(model.fuse()(x), model(x), atol=1e-5, rtol=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_unknown_models_name_the_known_ones():
    with pytest.raises(ModelError, match="known are cnn, nano"):
        build_model("resnet")
