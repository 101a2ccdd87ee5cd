"""The precision that losses compute in."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """`x` as float32 where it is of half precision, float32 and float64 as they are.

    Sums over classes, bits or pairs leave the range of float16 (65,504) or drown in the steps of bfloat16.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
