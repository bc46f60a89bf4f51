"""Training fusion networks on arbitrarily paired images (needs torch: `pip install 'edgefuse[train]'`).

A step: pairing → image bank → network → losses → optimiser.
"""
