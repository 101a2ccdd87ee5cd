"""How the published recipes vary a crop before an embedder sees it.

An augmentation maps a crop (h, w, 3) and a stream of random numbers to a crop of the network's size, uint8 RGB; the
pixels are normalised afterwards. Evaluation does not come through here: it takes `recognition.images.model_input`.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recognition.images import resize
from training.models.embedder import Normalisation

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


class Augmentation(Protocol):
    """Maps a crop (h, w, 3) uint8 to one of the network's size, by the random numbers given."""

    def __call__(self, pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]: ...


def stretched(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize as the published networks were trained, and as their cards resize: OpenCV's bilinear, no aspect kept."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return resize(pixels, width, height, interpolation="bilinear", antialias=False)


@dataclass(frozen=True)
class Stretch:
    """No variation: the crop at the network's size, as evaluation sees it.

    Attributes:
        width: in pixels.
        height: in pixels.
    """

    width: int = 224
    height: int = 224

    def __call__(self, pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
        return stretched(pixels, self.width, self.height)


@dataclass(frozen=True)
class ShiTuV1Augmentation:
    """The first PP-ShiTu's: a part of the crop at random, mirrored or not.

    `GeneralRecognition_PPLCNet_x2_5.yaml`: RandCropImage 224 and RandFlipImage. A part of area `minimum_area` to 1 of
    the crop's and of aspect 3/4 to 4/3, anywhere in it, is stretched to the network's size (Szegedy et al., "Going
    Deeper with Convolutions", 2014, section 6). As upstream, the aspect is drawn first (the ratio of
    its sides uniformly) and the area among those that fit the crop with it, so that no draw fails.

    Attributes:
        width: in pixels.
        height: in pixels.
        minimum_area: share of the crop's area.
        flip: chance of mirroring.
    """

    width: int = 224
    height: int = 224
    minimum_area: float = 0.08
    flip: float = 0.5

    def __call__(self, pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
        varied = stretched(part(pixels, random, self.minimum_area), self.width, self.height)
        return mirrored(varied) if random.random() < self.flip else varied


@dataclass(frozen=True)
class ShiTuV2Augmentation:
    """PP-ShiTuV2's: shifted by a few pixels, mirrored or not, and half of the time turned, since goods lie any way.

    `GeneralRecognitionV2_PPLCNetV2_base.yaml`, in its order: stretch to the network's size, flip, pad with black, cut
    the network's size out anywhere, turn about the centre (bilinear, black outside). Its last resize to the same size
    changes nothing and is not made. Turning is Pillow's, whose centre is half a pixel from OpenCV's.

    Attributes:
        width: in pixels.
        height: in pixels.
        padding: in pixels, on each side.
        flip: chance of mirroring.
        rotation: chance of turning.
        degrees: by so much at most, either way.
    """

    width: int = 224
    height: int = 224
    padding: int = 10
    flip: float = 0.5
    rotation: float = 0.5
    degrees: float = 90.0

    def __call__(self, pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
        varied = stretched(pixels, self.width, self.height)
        if random.random() < self.flip:
            varied = mirrored(varied)
        if self.padding:
            left, top = random.integers(2 * self.padding + 1, size=2).tolist()
            padded = np.pad(varied, ((self.padding, self.padding), (self.padding, self.padding), (0, 0)))
            varied = padded[top : top + self.height, left : left + self.width]
        if random.random() < self.rotation:
            varied = turned(varied, random, self.degrees)
        return varied


@dataclass(frozen=True)
class ChecklaneAugmentation:
    """Checklane's own: part of a product, turned, in another light.

    The first PP-ShiTu's part of the crop (a product half hidden, or a box drawn badly), mirrored or not, the second's
    turning, and between them a light: exposure, contrast, saturation and white balance, which differ from shop to shop
    and from an iconic picture to a till.

    Attributes:
        width: in pixels.
        height: in pixels.
        minimum_area: share of the crop's area that is left.
        flip: chance of mirroring.
        light: by so much at most does each of exposure, contrast and saturation differ from 1, and a fourth of it each
            colour's gain.
        rotation: chance of turning.
        degrees: by so much at most, either way.
    """

    width: int = 224
    height: int = 224
    minimum_area: float = 0.3
    flip: float = 0.5
    light: float = 0.4
    rotation: float = 0.5
    degrees: float = 90.0

    def __call__(self, pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
        varied = ShiTuV1Augmentation(self.width, self.height, self.minimum_area, self.flip)(pixels, random)
        if self.light:
            varied = in_another_light(varied, random, self.light)
        if random.random() < self.rotation:
            varied = turned(varied, random, self.degrees)
        return varied


def part(pixels: NDArray[np.uint8], random: np.random.Generator, minimum_area: float) -> NDArray[np.uint8]:
    """A part of area `minimum_area` to 1 of the crop's and of aspect 3/4 to 4/3, anywhere in it; (h, w, 3)."""
    rows, columns = pixels.shape[:2]
    stretch = math.sqrt(random.uniform(3 / 4, 4 / 3))  # width over height is its square
    # The largest share of the area at which neither side leaves the crop.
    largest = min(1.0, columns / rows / stretch**2, rows / columns * stretch**2)
    share = random.uniform(min(minimum_area, largest), largest)
    side = math.sqrt(rows * columns * share)
    width = min(columns, max(1, int(side * stretch)))
    height = min(rows, max(1, int(side / stretch)))
    left = int(random.integers(columns - width + 1))
    top = int(random.integers(rows - height + 1))
    return pixels[top : top + height, left : left + width]


def in_another_light(
    pixels: NDArray[np.uint8], random: np.random.Generator, light: float
) -> NDArray[np.uint8]:
    """Exposure, contrast, saturation and white balance drawn anew, as one affine map of the colours; (h, w, 3)."""
    exposure, contrast, colour = random.uniform(1 - light, 1 + light, size=3)
    balance = np.diag(random.uniform(1 - light / 4, 1 + light / 4, size=3))
    mean = float(pixels.mean(dtype=np.float64))
    return recoloured(
        pixels,
        exposure * contrast * balance @ saturation(colour),
        offset=exposure * (1 - contrast) * mean,
    )


def saturation(factor: float) -> NDArray[np.float64]:
    """The map of colours (3, 3) that mixes each with its grey; 1 leaves them, 0 takes all colour away."""
    return factor * np.eye(3) + (1 - factor) * np.tile(LUMINANCE, (3, 1))


def recoloured(
    pixels: NDArray[np.uint8], matrix: NDArray[np.float64], *, offset: float = 0.0
) -> NDArray[np.uint8]:
    """Map each colour by a matrix (3, 3) and add an offset; what leaves 0..255 is cut off. (h, w, 3)."""
    colours = pixels.astype(np.float32) @ matrix.T.astype(np.float32) + np.float32(offset)
    cut: NDArray[np.uint8] = np.clip(colours, 0, 255).astype(np.uint8)
    return cut


def turned(pixels: NDArray[np.uint8], random: np.random.Generator, degrees: float) -> NDArray[np.uint8]:
    """Turned about the centre by up to `degrees` either way, bilinear, black outside; (h, w, 3)."""
    angle = float(random.uniform(-degrees, degrees))
    return np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BILINEAR))


def mirrored(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Left becomes right; (h, w, 3)."""
    return pixels[:, ::-1]


def normalised(pixels: NDArray[np.uint8], normalisation: Normalisation) -> Tensor:
    """Pixels as a network wants them, by the arithmetic of `recognition.images.model_input`, to the last bit.

    Args:
        pixels: (h, w, 3) RGB.
        normalisation: of the network.
    Returns:
        (3, h, w) float32.
    """
    prepared = np.empty((3, *pixels.shape[:2]), np.float32)
    scale, means, deviations = normalisation
    for channel, mean, deviation, out in zip(
        pixels.transpose(2, 0, 1), means, deviations, prepared, strict=True
    ):
        np.multiply(channel, np.float32(scale / deviation), out=out)
        out -= np.float32(mean / deviation)
    return torch.from_numpy(prepared)
