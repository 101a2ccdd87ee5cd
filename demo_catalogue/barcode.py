"""EAN-13 bar codes (ISO/IEC 15420), as a scanner reads them."""

from __future__ import annotations

import numpy as np
from PIL import Image

_LEFT = (
    "0001101",
    "0011001",
    "0010011",
    "0111101",
    "0100011",
    "0110001",
    "0101111",
    "0111011",
    "0110111",
    "0001011",
)
_PARITY = ("LLLLLL", "LLGLGG", "LLGGLG", "LLGGGL", "LGLLGG", "LGGLLG", "LGGGLL", "LGLGLG", "LGLGGL", "LGGLGL")


def draw_barcode(gtin: str, width: int, height: int) -> Image.Image:
    """Draw the EAN-13 bar code of a GTIN-13 (ISO/IEC 15420, section 4.2), with its quiet zones.

    Args:
        gtin: Thirteen digits.
        width: Pixels; bars are smoothed where it is no multiple of 113 modules.
        height: Pixels.
    Returns:
        A greyscale image of width x height.
    """
    bits = "101"
    for digit, parity in zip(gtin[1:7], _PARITY[int(gtin[0])], strict=True):
        left = _LEFT[int(digit)]
        bits += left if parity == "L" else _inverted(left)[::-1]
    bits += "01010" + "".join(_inverted(_LEFT[int(digit)]) for digit in gtin[7:]) + "101"
    row = np.full(113, 255, np.uint8)
    row[11 : 11 + len(bits)][np.array([bit == "1" for bit in bits])] = 20
    bars = Image.fromarray(np.repeat(row[None, :], 4, axis=0)).resize(
        (width, round(height * 0.86)), Image.Resampling.BOX
    )
    sheet = Image.new("L", (width, height), 255)
    sheet.paste(bars, (0, round(height * 0.05)))
    return sheet


def _inverted(bits: str) -> str:
    return bits.translate(str.maketrans("01", "10"))
