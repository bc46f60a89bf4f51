"""`gan`: the GAN baseline of "Beyond Strict Pairing" (Deng et al., CVPR 2026): its generator.

The generator is the CNN baseline's network; what differs is the training, against the discriminator in
`edgefuse.train.models.discriminator`.
"""

from edgefuse.train.models.cnn import CNN

__all__ = ["GAN"]


class GAN(CNN):
    """The generator, the part that fuses and is shipped."""
