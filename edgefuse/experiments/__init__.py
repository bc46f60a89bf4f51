"""The experiments of "Beyond Strict Pairing" (Deng et al., CVPR 2026) on folders of one's own.

`published.csv` holds the figures of the paper's Tables 1 to 4.
"""
