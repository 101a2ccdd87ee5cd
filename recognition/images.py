"""From bytes to pixels: decode within bounds, turn upright, cut out, resize, and say what ails a picture.

Sizes and boxes outside this module are always those of the full, upright picture, however small it was
decoded.
"""

import io
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY

from recognition.errors import ImageRefused
from recognition.model_card import Interpolation, ModelCard

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels
Format = Literal["JPEG", "PNG", "WEBP"]

# What a file of each format opens with. Only the first three are ever given to a decoder; the rest are known
# by name to tell people what they sent.
ACCEPTED: dict[Format, bytes] = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "WEBP": b"RIFF"}
REFUSED = {
    "a GIF": b"GIF8",
    "a BMP": b"BM",
    "a TIFF": b"II*\x00",
    "a big-endian TIFF": b"MM\x00*",
    "a PostScript file": b"%!PS",
    "an EPS with preview": b"\xc5\xd0\xd3\xc6",
    "a PDF": b"%PDF",
    "a Photoshop file": b"8BPS",
    "a JPEG XL": b"\xff\x0a",
    "a JPEG 2000": b"\x00\x00\x00\x0cjP",
}

# A few megabytes can hold millions of empty PNG chunks or JPEG segments at a microsecond or more for each, or
# thousands of passes over one huge progressive JPEG at 35 ms for each. Real files stay far below both limits:
# encoders cut 20 MB into some thousand parts, and make ten passes.
MAX_READS = 100_000
MAX_PASSES = 20  # over a picture of ImageLimits.max_pixels; more over a smaller one
# Thirty bytes of WebP can hold 49 million pixels, which take 1.6 s and 850 MB to unpack. A PNG or JPEG of one flat
# colour has up to 1,030 pixels a byte; only WebP, and a PNG of a few colours, go beyond.
MAX_PIXELS_A_BYTE = 2000
PIXELS_ALWAYS_DECODED = 1_000_000  # however few bytes hold them

WHITE = (255, 255, 255)
PADDING_GREY = 127

# EXIF orientation -> what turns the picture upright; 1 is upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)

PILLOW_FILTER = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
OPENCV_FILTER = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
# A picture is resized in a third of a millisecond: threads of OpenCV's own would only take cores from the models'.
cv2.setNumThreads(1)

# What makes a poor reference picture. Of 521 shop and pack pictures (Grocery Store dataset) none is found fault
# with; of 227 of them, all are when blurred (Gaussian, 3 pixels) and all but one when darkened to a fifth.
FINDING_SIDE = 224  # sharpness and light are judged at this longest side, about what an embedder sees
SMALL_SIDE = 64  # pixels of the shorter side
DARK_MEAN = 45  # of the grey values, 0..255
BRIGHT_MEAN = 245  # a pack on white has up to 244
LOW_CONTRAST = 48  # grey values between the 5th and the 95th percentile
BLURRED = 0.012  # variance of the Laplacian over that of the grey values, so that contrast does not count


def as_box(sides: Sequence[float]) -> Box:
    """A box as it is stored and sent, a list of four numbers."""
    x1, y1, x2, y2 = (float(side) for side in sides)
    return x1, y1, x2, y2


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may cost at most, and must show at least.

    Attributes:
        max_bytes: of the file.
        max_pixels: width times height.
        min_side: the shorter side in pixels.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    min_side: int = 8


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True)
class DecodedImage:
    """A picture, upright and in colour.

    Attributes:
        pixels: (h, w, 3) uint8 RGB, read-only; smaller than width x height where it was decoded scaled.
        width: of the full upright picture; all boxes are in these pixels.
        height: likewise.
        format: of the file.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    format: Format

    def crop(self, box: Box, margin: float = 0.0) -> NDArray[np.uint8]:
        """Cut a box out.

        Args:
            box: x1, y1, x2, y2 in pixels of the full picture; what lies outside of it is left out.
            margin: share of the box's width added at left and right, and of its height above and below.
        Returns:
            A view into `pixels`, (h, w, 3), at least 1 x 1.
        """
        x1, y1, x2, y2 = box
        margin_x, margin_y = margin * (x2 - x1), margin * (y2 - y1)
        rows, columns = self.pixels.shape[:2]
        return self.pixels[
            _span(y1 - margin_y, y2 + margin_y, rows / self.height, rows),
            _span(x1 - margin_x, x2 + margin_x, columns / self.width, columns),
        ]


def _span(start: float, stop: float, scale: float, length: int) -> slice:
    first = min(max(round(start * scale), 0), length - 1)
    return slice(first, min(max(round(stop * scale), first + 1), length))


def check_header(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Format:
    """Judge a picture by its first bytes and header alone, in a millisecond, before anything is decoded.

    Returns:
        Its format.
    Raises:
        ImageRefused: as `decode`, but for faults that only the pixels show.
    """
    file_format = _judge_content(data, limits)
    with _refusing_damage(file_format, limits):
        _judge_header(_open(data, file_format), data, file_format, limits)
    return file_format


def decode(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS, *, longest_side: int | None = None
) -> DecodedImage:
    """Decode a JPEG, PNG or WebP, known by its content and never by a name.

    The header is judged before any pixel is made. Greyscale, palette, CMYK and 16-bit pictures become RGB,
    transparent ones are laid on white, the EXIF orientation is applied; colour profiles are not.

    Args:
        data: the whole file.
        limits: what it may cost.
        longest_side: make no more than this many pixels a side; of a JPEG, without making the full picture
            first.
    Raises:
        ImageRefused: with a code for each fault that a picture can have.
    """
    file_format = _judge_content(data, limits)
    with _refusing_damage(file_format, limits):
        image = _open(data, file_format)
        width, height = image.size
        _judge_header(image, data, file_format, limits)
        target = _reduced_size(width, height, longest_side)
        # A JPEG is decoded at a half, quarter or eighth, to no less than the target; the others know no draft.
        image.draft(image.mode, target)
        image.load()
        orientation = _orientation(image)
        picture = _to_rgb(image)
    if picture.size != target:
        picture = picture.resize(target, Image.Resampling.BILINEAR)
    if orientation in UPRIGHT:
        picture = picture.transpose(UPRIGHT[orientation])
    if orientation in SIDEWAYS:
        width, height = height, width
    return DecodedImage(np.asarray(picture), width, height, file_format)


def _open(data: bytes, file_format: Format) -> Image.Image:
    return Image.open(_CountingReader(data, file_format), formats=[file_format])


@contextmanager
def _refusing_damage(file_format: Format, limits: ImageLimits) -> Iterator[None]:
    """Turn all that Pillow's decoders raise for a bad file into ImageRefused."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's sentence speaks of attacks and of a limit that is not ours; its count is all we want of it.
        count = re.search(r"\d+", str(error))
        found = f"{int(count[0]):,} pixels" if count else "more pixels than can be opened"
        raise ImageRefused(
            "too-many-pixels",
            f"Found {found}, wanted at most {limits.max_pixels:,} in all: send it smaller.",
        ) from error
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error) as error:
        # All that Pillow's decoders raise for damaged files, and for a PNG's texts or colour profile out of bounds.
        if "MAX_TEXT" in str(error):
            raise ImageRefused(
                "too-much-metadata",
                f"Found a {file_format} with more than {MAX_TEXT_CHUNK:,} bytes in one of its texts or its colour"
                f" profile, or {MAX_TEXT_MEMORY:,} in all, wanted less: save it without metadata.",
            ) from error
        raise ImageRefused(
            "truncated",
            f"Found a {file_format} that is damaged or ends early ({error}), wanted a whole one.",
        ) from error


class _CountingReader(io.BytesIO):
    """A file in memory that gives up on files made of countless parts, whatever those parts are called."""

    def __init__(self, data: bytes, file_format: Format) -> None:
        super().__init__(data)
        self._file_format = file_format
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise ImageRefused(
                "unsupported-format",
                f"Found a {self._file_format} in more than {MAX_READS:,} parts, wanted fewer: save it again.",
            )
        return super().read(size)


def _judge_content(data: bytes, limits: ImageLimits) -> Format:
    """The format by the first bytes; refuse what is empty, too large or nothing that we decode."""
    wanted = "wanted a JPEG, PNG or WebP"
    if not data:
        raise ImageRefused("empty", f"Found 0 bytes, {wanted}: send the picture's content.")
    if len(data) > limits.max_bytes:
        raise ImageRefused(
            "too-many-bytes",
            f"Found {len(data):,} bytes, wanted at most {limits.max_bytes:,}: send the picture smaller.",
        )
    for file_format, opening in ACCEPTED.items():
        if data.startswith(opening) and (file_format != "WEBP" or data[8:12] == b"WEBP"):
            return file_format
    found = next((name for name, opening in REFUSED.items() if data.startswith(opening)), None)
    if data[4:8] == b"ftyp":
        found = "a HEIC, AVIF or video"
    elif b"<svg" in data[:1024]:
        found = "an SVG"
    if found is not None:
        raise ImageRefused("unsupported-format", f"Found {found}, {wanted}: convert the picture.")
    raise ImageRefused("not-an-image", f"Found something else than an image, {wanted}.")


def _judge_header(image: Image.Image, data: bytes, file_format: Format, limits: ImageLimits) -> None:
    """Refuse by what the header says, before anything is decoded."""
    width, height = image.size
    pixels = width * height
    if pixels > limits.max_pixels:
        raise ImageRefused(
            "too-many-pixels",
            f"Found {width} x {height} pixels, wanted at most {limits.max_pixels:,} in all: send it smaller.",
        )
    if pixels > max(PIXELS_ALWAYS_DECODED, MAX_PIXELS_A_BYTE * len(data)):
        raise ImageRefused(
            "too-many-pixels",
            f"Found {width} x {height} pixels in {len(data):,} bytes, wanted at least a byte for every"
            f" {MAX_PIXELS_A_BYTE:,}: so empty a picture shows no product.",
        )
    if min(width, height) < limits.min_side:
        raise ImageRefused(
            "too-small",
            f"Found {width} x {height} pixels, wanted at least {limits.min_side} a side: send it larger.",
        )
    # Phones put depth or a second exposure behind a JPEG; the first picture is the photo, and not a film.
    if file_format != "JPEG" and getattr(image, "is_animated", False):
        raise ImageRefused("animated", f"Found a moving {file_format}, wanted a still one: send one frame.")
    if file_format == "JPEG" and not _is_baseline(data):
        passes = data.count(b"\xff\xda")
        if passes * pixels > MAX_PASSES * limits.max_pixels:
            raise ImageRefused(
                "too-many-pixels",
                f"Found {passes} passes over {width} x {height} pixels, wanted fewer: save it as baseline.",
            )


def _is_baseline(data: bytes) -> bool:
    """Whether a JPEG is sequential and Huffman-coded, so that each pass over it costs bytes of its own."""
    position = 2
    while data[position : position + 1] == b"\xff":
        marker = data[position + 1 : position + 2]
        if marker in (b"\xc0", b"\xc1"):
            return True
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return False


def _reduced_size(width: int, height: int, longest_side: int | None) -> tuple[int, int]:
    longest = max(width, height)
    if longest_side is None or longest <= longest_side:
        return width, height
    scale = longest_side / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1  # the pixels are whole: damaged EXIF data is no reason to refuse them


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would clip 16 bits to 8; the upper byte is meant.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        on_white = Image.new("RGB", image.size, WHITE)
        on_white.paste(image, mask=image.getchannel("A"))
        return on_white
    return image if image.mode == "RGB" else image.convert("RGB")


def resize(
    pixels: NDArray[np.uint8], width: int, height: int, *, interpolation: Interpolation, antialias: bool
) -> NDArray[np.uint8]:
    """Resize a picture.

    Args:
        pixels: (h, w, 3).
        width: wanted.
        height: wanted.
        interpolation: bilinear or bicubic.
        antialias: True reduces by averaging, as Pillow does. False looks at 2 x 2 or 4 x 4 pixels however far
            apart, as OpenCV does; published models were trained on such pixels.
    Returns:
        (height, width, 3).
    """
    if antialias:
        return np.asarray(Image.fromarray(pixels).resize((width, height), PILLOW_FILTER[interpolation]))
    return np.asarray(
        cv2.resize(pixels, (width, height), interpolation=OPENCV_FILTER[interpolation]), np.uint8
    )


def model_input(pixels: NDArray[np.uint8], card: ModelCard) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Prepare a picture or crop as the card's model wants it; training, evaluation and serving all come
    through here.

    Args:
        pixels: (h, w, 3) RGB, any size.
        card: of the model.
    Returns:
        (3, card.input.height, card.input.width) in the card's dtype.
    """
    wanted = card.input
    width, height = input_extent(pixels.shape[1], pixels.shape[0], card)
    fitted = resize(
        pixels, width, height, interpolation=card.resize.interpolation, antialias=card.resize.antialias
    )
    if (width, height) != (wanted.width, wanted.height):
        padded = np.full((wanted.height, wanted.width, 3), PADDING_GREY, np.uint8)
        padded[:height, :width] = fitted
        fitted = padded
    channels = fitted.transpose(2, 0, 1)
    if wanted.colour_order == "BGR":
        channels = channels[::-1]
    if wanted.scale is None or wanted.mean is None or wanted.std is None:
        return np.ascontiguousarray(channels, dtype=wanted.dtype)
    prepared = np.empty(channels.shape, np.float32)
    for channel, mean, std, out in zip(channels, wanted.mean, wanted.std, prepared, strict=True):
        np.multiply(channel, np.float32(wanted.scale / std), out=out)
        out -= np.float32(mean / std)
    return prepared


def input_extent(width: int, height: int, card: ModelCard) -> tuple[int, int]:
    """The width and height that a picture takes of the model's input: all of it, or less where its aspect is
    kept.
    """
    if not card.resize.keep_aspect:
        return card.input.width, card.input.height
    scale = min(card.input.width / width, card.input.height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def encode_jpeg(pixels: NDArray[np.uint8], *, quality: int = 90) -> bytes:
    """Encode (h, w, 3) RGB pixels as a JPEG that carries nothing but them: no EXIF, place or camera."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def quality_findings(pixels: NDArray[np.uint8]) -> tuple[str, ...]:
    """Say what makes a crop a poor reference picture: hints for a person, nothing is refused for them.

    Args:
        pixels: (h, w, 3) RGB, of the main body alone.
    Returns:
        Of "small", "dark", "bright", "low-contrast" and "blurred" those that hold, in this order.
    """
    picture = Image.fromarray(pixels).convert("L")
    picture.thumbnail((FINDING_SIDE, FINDING_SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(picture, np.float32)
    low, high = np.percentile(grey, (5, 95))
    findings = {
        "small": min(pixels.shape[:2]) < SMALL_SIDE,
        "dark": grey.mean() < DARK_MEAN,
        "bright": grey.mean() > BRIGHT_MEAN,
        "low-contrast": high - low < LOW_CONTRAST,
        "blurred": min(grey.shape) > 2 and _laplacian(grey).var() < BLURRED * grey.var(),
    }
    return tuple(finding for finding, holds in findings.items() if holds)


def _laplacian(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return neighbours - 4 * grey[1:-1, 1:-1]
