"""The code books of the IQ formats, as arrays that kernels can use. Facts of the formats, kept packed in grids.npz.

IQ2_XXS int8 (256, 8)   IQ2_XS int8 (512, 8)   IQ2_S int8 (1024, 8)   values 8, 25, 43
IQ3_XXS int8 (256, 4) values 4, 12, ... 52, 62     IQ3_S int8 (512, 4) values 1, 3, ... 15
IQ1_S int8 (2048, 8) values -1, 0, 1; IQ1_M uses it too
SIGNS uint8 (128,): the seven bits of an index, and an eighth that makes the number of set bits even
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lacewing.quants.bits import Array

with np.load(Path(__file__).with_name("grids.npz"), allow_pickle=False) as _packed:
    IQ2_XXS: Array = _packed["iq2_xxs"]
    IQ2_XS: Array = _packed["iq2_xs"]
    IQ2_S: Array = _packed["iq2_s"]
    IQ3_XXS: Array = _packed["iq3_xxs"]
    IQ3_S: Array = _packed["iq3_s"]
    IQ1_S: Array = _packed["iq1_s"]

SIGNS: Array = np.array([index | (index.bit_count() & 1) << 7 for index in range(128)], np.uint8)
