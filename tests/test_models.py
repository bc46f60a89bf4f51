import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgefuse.errors import ModelError
from edgefuse.train.checkpoint import import_released, restore_model
from edgefuse.train.models import (
    CNN,
    GAN,
    MODELS,
    Nano,
    Transformer,
    build_model,
    parameter_count,
)
from edgefuse.train.models.discriminator import Discriminator
from edgefuse.train.models.transformer import HEADS, ChannelAttention


@pytest.mark.parametrize("name", MODELS)
def test_models_keep_the_size_and_learn_everywhere(name):
    torch.manual_seed(0)
    model = build_model(name)
    multiple = model.size_divisor
    x = torch.rand(2, 2, 6 * multiple, 9 * multiple)
    fused = model(x)
    assert fused.shape == (2, 1, *x.shape[2:])
    fused.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert parameter_count(model) * 4 < 1_000_000


def test_published_sizes():
    assert parameter_count(Nano()) == 37_520
    assert parameter_count(CNN()) == 214_882
    assert parameter_count(Transformer()) == 187_417
    assert parameter_count(GAN()) == parameter_count(CNN())
    assert parameter_count(Discriminator(128)) == 349_830


def test_the_discriminator_scores_each_image_alone():
    torch.manual_seed(0)
    discriminator = Discriminator(32).eval()
    x = torch.rand(3, 1, 32, 32)
    scores = discriminator(x)
    assert scores.shape == (3,)
    assert (scores.abs() < 1).all()
    torch.testing.assert_close(discriminator(x[1:2]), scores[1:2])


@pytest.mark.parametrize(("name", "file"), [("cnn", "CNN"), ("transformer", "Trans"), ("gan", "GAN")])
def test_the_networks_answer_as_the_published_ones(shared, name, file):
    model = restore_model(import_released(shared / f"paper/checkpoints/{file}.model", name))
    golden = np.load(shared / "golden/paper_networks.npz")
    with torch.inference_mode():
        answer = model(torch.from_numpy(golden["input"])).numpy()
    assert np.abs(answer - golden[file]).max() < 1e-5


def test_other_checkpoints_are_not_taken_for_released_ones(tmp_path):
    torch.save(build_model("nano").state_dict(), tmp_path / "nano.model")
    torch.save({"inchange.0.weight": 1}, tmp_path / "odd.model")
    (tmp_path / "text.model").write_text("no weights")
    for name, words in {
        "absent": "no such checkpoint",
        "text": "not a readable",
        "odd": "not a plain state_dict",
        "nano": "not a released 'cnn'",
    }.items():
        with pytest.raises(ModelError, match=words):
            import_released(tmp_path / f"{name}.model", "cnn")
    with pytest.raises(ModelError, match="known are cnn, gan, transformer"):
        import_released(tmp_path / "nano.model", "nano")


class PlainAttention(nn.Module):
    """Channel attention as published: 24 maps of every channel, spelled out."""

    def __init__(self, like):
        super().__init__()
        self.like = like

    def forward(self, x):
        batch, channels, height, width = x.shape
        maps = self.like.qkv(x).view(batch, channels, 3, HEADS, height * width).permute(2, 0, 3, 1, 4)
        q, k, v = (F.normalize(maps[0], dim=-1), F.normalize(maps[1], dim=-1), maps[2])
        heads = torch.softmax(q @ k.mT * self.like.t, dim=-1) @ v
        return self.like.merge(heads.transpose(1, 2).reshape(batch, channels * HEADS, height, width))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 0.0])
def test_attention_from_covariances_is_attention(scale):
    torch.manual_seed(4)
    attention = ChannelAttention(12)
    with torch.no_grad():
        attention.t.uniform_(0.5, 3)
    x = (scale * torch.randn(2, 12, 9, 14)).requires_grad_()
    ours, plain = attention(x), PlainAttention(attention)(x)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(ours)
    inputs = (x, *attention.parameters())
    of_ours = torch.autograd.grad((ours * weights).sum(), inputs)
    of_plain = torch.autograd.grad((plain * weights).sum(), inputs)
    for a, b in zip(of_ours, of_plain, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_attention_on_flat_maps():
    torch.manual_seed(4)
    attention = ChannelAttention(12)
    x = (30 * torch.randn(1, 12, 1, 1)).expand(1, 12, 90, 140).contiguous()
    with torch.no_grad():  # q and k nearly vanish, v does not
        offsets = -attention.qkv.weight.view(12, 3, HEADS) * x[0, :, :1, :1]
        offsets[:, :2] += 1e-3
        offsets[:, 2] += torch.randn(12, HEADS)
        assert attention.qkv.bias is not None
        attention.qkv.bias.copy_(offsets.flatten())
        torch.testing.assert_close(attention(x), PlainAttention(attention)(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (64, 48)])
def test_a_folded_nano_answers_the_same(size):
    torch.manual_seed(1)
    model = Nano().eval()
    x = torch.rand(2, 2, *size)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        torch.testing.assert_close(model.reparameterize()(x), model(x), atol=1e-5, rtol=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_unknown_models_name_the_known_ones():
    with pytest.raises(ModelError, match="known are cnn, gan, nano, transformer"):
        build_model("resnet")
