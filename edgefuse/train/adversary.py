"""Training against a discriminator: L_adv of Eq. 7, which the paper leaves to its supplement."""

import torch
from torch import Tensor, nn

from edgefuse.train.models.discriminator import Discriminator

__all__ = ["Adversary"]

TARGET = 0.8


class Adversary(nn.Module):
    """The discriminator's side of the game, with the least-squares losses of Mao et al. (ICCV 2017).

    What is real? Nobody has ever seen a true fused image, and with unpaired inputs no source shows the
    scene that the fused one shows. So the discriminator judges single images: does this look as if it came
    from one of the two cameras? Half of its real examples are infrared, half visible, and nothing asks that
    they show what the fused ones show. L_adv is its mean score of the fused images, which the generator
    raises: seams, ghosts and washed-out contrast are what gives a mixture away.

    Why this form? The published discriminator ends in a tanh, so a logistic loss does not apply, and a
    Wasserstein critic would need an unbounded score. Regressing ±0.8 instead of ±1 keeps the tanh where it
    has a slope: a discriminator that is sure of itself goes on telling the generator what to change. For
    its own step it sees real and fused images in one batch, so batch norm cannot tell them apart by batch;
    the generator's step uses the running statistics.

    Args:
        patch: side of the images, in pixels.
    """

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.discriminator = Discriminator(patch)

    def opinion(self, fused: Tensor) -> Tensor:
        """Return the scores `[B]` of `[B, 1, P, P]`, through which the generator learns."""
        return self.discriminator.eval()(fused)

    def loss(
        self, fused: Tensor, ir: Tensor, vis: Tensor, first: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the discriminator's own loss, and it by name with the mean scores of real and fused images.

        All are `[B, 1, P, P]`. `first` is the position of their first row among all rows of all steps:
        infrared images stand for the real ones at even positions, visible ones at odd ones.
        """
        even = torch.arange(first, first + len(ir), device=ir.device).remainder(2).eq(0)
        real = torch.where(even.view(-1, 1, 1, 1), ir, vis)
        scores = self.discriminator.train()(torch.cat((real, fused.detach())))
        of_real, of_fused = scores.chunk(2)
        loss = ((of_real - TARGET) ** 2).mean() / 2 + ((of_fused + TARGET) ** 2).mean() / 2
        return loss, {"discriminator": loss, "score_real": of_real.mean(), "score_fused": of_fused.mean()}
