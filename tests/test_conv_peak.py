"""The bench of a convolution's peak: what it counts, and that int8 is computed in int8."""

import numpy as np

from bench.conv_peak import CHANNELS, HEIGHT, WIDTH, convolution, multiplications
from edgefuse.export.verify import int8_share


def test_multiplications_are_counted_and_int8_is_computed_in_bytes(tmp_path):
    for precision in ("fp32", "int8"):
        made = convolution(precision)
        assert multiplications(made) == 3 * CHANNELS**2 * 9 * HEIGHT * WIDTH
    path = tmp_path / "peak.onnx"
    path.write_bytes(made.SerializeToString())
    assert int8_share(path, {"sources": np.zeros((1, CHANNELS, HEIGHT, WIDTH), np.float32)}) == 1.0
