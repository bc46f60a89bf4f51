"""Training fusion networks on arbitrarily paired images (needs the extra `train`).

A step: pairing → image bank → network → losses → optimiser.
"""
