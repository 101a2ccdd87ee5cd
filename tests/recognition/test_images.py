"""Decoding answers every file with the right pixels or a refusal that names the fault; resizing does what it says."""

import io
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from recognition.errors import ImageRefused
from recognition.images import (
    DecodedImage,
    ImageLimits,
    check_header,
    decode,
    encode_jpeg,
    model_input,
    quality_findings,
    resize,
)
from recognition.model_card import ModelCard
from tests.recognition.toy_models import embedder_card

OPENCV = Path(__file__).parent / "data" / "opencv_resize.npz"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(width: int = 64, height: int = 32) -> Image.Image:
    """Red and green above blue and white: no orientation of it looks like another."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, WHITE
    return Image.fromarray(pixels)


def corners(pixels: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """The colours near the corners, cleaned of compression: above left, above right, below left, below right."""
    rounded = (np.rint(pixels / 255) * 255).astype(int)
    return [tuple(rounded[y, x]) for y in (4, -5) for x in (4, -5)]


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def png_chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 2, before: bytes = b""
) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = before + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + header + body


class TestGoodPictures:
    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
    def test_each_accepted_format_gives_its_pixels_and_size(self, format: str) -> None:
        image = decode(encoded(quarters(), format, quality=95))
        assert (image.width, image.height, image.format) == (64, 32, format)
        assert image.pixels.shape == (32, 64, 3)
        assert corners(image.pixels) == [RED, GREEN, BLUE, WHITE]

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_exif_orientation_comes_out_upright(self, orientation: int, format: str) -> None:
        # What a camera stores for an upright scene: the inverse of what the orientation asks a viewer to do.
        stored = {
            1: None,
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }[orientation]
        scene = quarters()
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(scene if stored is None else scene.transpose(stored), format, quality=95, exif=exif)
        for longest_side in (None, 32):
            image = decode(data, longest_side=longest_side)
            assert (image.width, image.height) == (64, 32)
            assert corners(image.pixels) == [RED, GREEN, BLUE, WHITE]

    def test_damaged_exif_is_no_reason_to_refuse_whole_pixels(self) -> None:
        image = decode(encoded(quarters(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\1"))
        assert corners(image.pixels) == [RED, GREEN, BLUE, WHITE]

    def test_a_wrong_extension_or_content_type_cannot_matter(self) -> None:
        # No name comes in at all: a PNG is a PNG whatever its sender called it.
        assert decode(encoded(quarters(), "PNG")).format == "PNG"

    def test_cmyk_jpeg(self) -> None:
        image = decode(encoded(quarters().convert("CMYK"), "JPEG", quality=95))
        assert corners(image.pixels) == [RED, GREEN, BLUE, WHITE]

    @pytest.mark.parametrize("mode", ["L", "1"])
    def test_greyscale(self, mode: str) -> None:
        pixels = decode(encoded(quarters().convert("L").convert(mode), "PNG")).pixels
        assert (pixels[..., 0] == pixels[..., 2]).all()
        assert (pixels[-5, -5] == 255).all()

    def test_sixteen_bit_grey_keeps_its_upper_byte(self) -> None:
        levels = np.tile(np.linspace(0, 65535, 64, dtype=np.uint16), (16, 1))
        pixels = decode(encoded(Image.fromarray(levels), "PNG")).pixels
        assert np.array_equal(pixels[..., 1], (levels >> 8).astype(np.uint8))

    def test_sixteen_bit_colour_keeps_its_upper_byte(self) -> None:
        row = b"\0" + struct.pack(">HHH", 0xFF12, 0x8034, 0x0056) * 16
        pixels = decode(png(16, 16, row * 16, depth=16)).pixels
        assert (pixels == (0xFF, 0x80, 0x00)).all()

    @pytest.mark.parametrize("format", ["PNG", "WEBP"])
    def test_transparent_pixels_are_laid_on_white(self, format: str) -> None:
        picture = quarters().convert("RGBA")
        picture.paste((0, 0, 0, 0), (0, 0, 32, 16))
        picture.paste((0, 0, 0, 128), (32, 0, 64, 16))
        pixels = decode(encoded(picture, format, lossless=True)).pixels
        assert (pixels[4, 4] == 255).all()
        assert (abs(pixels[4, -5].astype(int) - 127) <= 1).all()

    def test_transparent_palette(self) -> None:
        picture = quarters().quantize(4)
        transparent = picture.getpixel((0, 0))
        pixels = decode(encoded(picture, "PNG", transparency=transparent)).pixels
        assert corners(pixels) == [WHITE, GREEN, BLUE, WHITE]

    def test_a_phones_jpeg_with_a_second_picture_behind_it_is_the_first_one(self) -> None:
        data = encoded(
            quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 32))], quality=95
        )
        image = decode(data, longest_side=32)
        assert (image.format, image.width, image.height) == ("JPEG", 64, 32)
        assert corners(image.pixels) == [RED, GREEN, BLUE, WHITE]

    def test_a_motion_photo_with_a_film_behind_it_is_read(self) -> None:
        film = np.random.default_rng(0).bytes(1_000_000) + b"\xff\xda" * 10_000
        assert decode(encoded(quarters(), "JPEG") + film).format == "JPEG"

    def test_an_ordinary_progressive_jpeg_is_read(self) -> None:
        assert decode(encoded(quarters(), "JPEG", progressive=True)).format == "JPEG"


class TestScaledDecode:
    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
    def test_boxes_stay_in_pixels_of_the_full_picture(self, format: str) -> None:
        image = decode(encoded(quarters(640, 480), format), longest_side=160)
        assert (image.width, image.height) == (640, 480)
        assert image.pixels.shape == (120, 160, 3)

    def test_a_smaller_picture_is_never_enlarged(self) -> None:
        assert decode(encoded(quarters(), "JPEG"), longest_side=1000).pixels.shape == (32, 64, 3)

    def test_a_twelve_megapixel_jpeg_is_never_made_in_full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = encoded(quarters(4000, 3000), "JPEG")
        made: list[tuple[int, int]] = []
        load = Image.Image.convert

        def noting(self: Image.Image, *arguments: object) -> Image.Image:
            made.append(self.size)
            return load(self, *arguments)  # type: ignore[arg-type]

        # The size after libjpeg's own reduction can be seen from outside only through Pillow.
        grey = encoded(quarters(4000, 3000).convert("L"), "JPEG")
        monkeypatch.setattr(Image.Image, "convert", noting)
        image = decode(grey, longest_side=1280)
        assert made == [(2000, 1500)]
        assert image.pixels.shape == (960, 1280, 3)
        assert corners(decode(data, longest_side=1280).pixels) == [RED, GREEN, BLUE, WHITE]

    def test_a_very_long_picture_keeps_a_pixel_of_its_short_side(self) -> None:
        assert decode(encoded(quarters(2000, 10), "PNG"), longest_side=100).pixels.shape == (1, 100, 3)


def refusal(data: bytes, **limits: int) -> ImageRefused:
    with pytest.raises(ImageRefused) as refused:
        decode(data, ImageLimits(**limits))
    return refused.value


class TestRefusals:
    def test_no_bytes(self) -> None:
        assert refusal(b"").code == "empty"

    @pytest.mark.parametrize(
        "data", [b"hello", b"\0" * 100, b"{}", b"RIFF\0\0\0\0WAVEfmt ", b"<html></html>"]
    )
    def test_no_image(self, data: bytes) -> None:
        assert refusal(data).code == "not-an-image"

    @pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "EPS", "PDF", "JPEG2000", "AVIF"])
    def test_formats_that_are_not_decoded_are_called_by_their_name(self, format: str) -> None:
        refused = refusal(encoded(quarters(), format))
        assert refused.code == "unsupported-format"
        assert {"EPS": "PostScript", "JPEG2000": "JPEG 2000"}.get(format, format) in refused.detail

    @pytest.mark.parametrize(
        "opening", [b"", b"\xef\xbb\xbf", b'<?xml version="1.0"?>\n<!-- a drawing -->\n']
    )
    def test_svg(self, opening: bytes) -> None:
        refused = refusal(opening + b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>')
        assert refused.code == "unsupported-format"
        assert "SVG" in refused.detail

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
    @pytest.mark.parametrize("longest_side", [None, 100])
    def test_truncated(self, format: str, share: float, longest_side: int | None) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
        data = encoded(noise, format)
        with pytest.raises(ImageRefused) as refused:
            decode(data[: int(len(data) * share)], longest_side=longest_side)
        assert refused.value.code == "truncated"
        assert format in refused.value.detail

    def test_too_many_bytes(self) -> None:
        data = encoded(quarters(), "PNG")
        refused = refusal(data, max_bytes=len(data) - 1)
        assert refused.code == "too-many-bytes"
        assert f"{len(data):,}" in refused.detail
        assert f"{len(data) - 1:,}" in refused.detail

    @pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (8_000, 8_000), (12_000, 12_000)])
    def test_too_many_pixels_are_refused_by_the_header(self, width: int, height: int) -> None:
        refused = refusal(png(width, height, b"\0" * 1000))
        assert refused.code == "too-many-pixels"
        assert "wanted at most 50,000,000" in refused.detail
        assert "attack" not in refused.detail

    def test_more_pixels_than_pillow_opens_are_counted_in_our_words(self) -> None:
        assert refusal(png(30_000, 30_000, b"\0")).detail == (
            "Found 900,000,000 pixels, wanted at most 50,000,000 in all: send it smaller."
        )

    def test_a_huge_webp_of_a_few_bytes_is_refused_by_the_header(self) -> None:
        header = b"\x2f" + struct.pack("<I", (15_999) | (15_999 << 14))
        data = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8L" + struct.pack("<I", 10) + header + b"\0" * 5
        assert refusal(data).code == "too-many-pixels"

    def test_pixels_that_take_next_to_no_bytes_are_refused_by_the_header(self) -> None:
        """Within the limit of pixels, yet a second and a gigabyte to unpack; a megapixel of one colour is fine."""
        refused = refusal(encoded(Image.new("RGB", (2_000, 1_000), RED), "WEBP", lossless=True, method=0))
        assert refused.code == "too-many-pixels"
        assert "2000 x 1000" in refused.detail
        flat = decode(encoded(Image.new("RGB", (1_000, 1_000), RED), "WEBP", lossless=True, method=0))
        assert flat.pixels.shape == (1_000, 1_000, 3)

    @pytest.mark.parametrize(
        ("format", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("JPEG", "RGB"), ("JPEG", "L")]
    )
    def test_one_flat_colour_is_not_yet_too_empty(self, format: str, mode: str) -> None:
        data = encoded(Image.new(mode, (2_000, 1_000), "white"), format)
        assert decode(data).pixels.min() == 255

    def test_one_pixel(self) -> None:
        refused = refusal(encoded(Image.new("RGB", (1, 1)), "PNG"))
        assert refused.code == "too-small"
        assert "1 x 1" in refused.detail

    @pytest.mark.parametrize("format", ["PNG", "WEBP"])
    def test_animated(self, format: str) -> None:
        frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
        assert refusal(data).code == "animated"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        png(30_000, 30_000, b"\0"),
        encoded(Image.new("RGB", (1, 1)), "PNG"),
        encoded(quarters(), "GIF"),
    ],
)
def test_the_header_alone_says_what_decoding_would_say(data: bytes) -> None:
    with pytest.raises(ImageRefused) as refused:
        check_header(data)
    assert refused.value.code == refusal(data).code


def test_a_good_header_tells_the_format() -> None:
    assert check_header(encoded(quarters(), "WEBP")) == "WEBP"


class TestBombs:
    """Small files that would cost much; each is answered in time, and those within the limits even with a picture."""

    @pytest.fixture(autouse=True)
    def in_time(self) -> object:
        yield (started := time.perf_counter())
        # Each took 3 to 60 s without its guard, and well under a second with it; the machine may be busy.
        assert time.perf_counter() - started < 3

    def test_a_blank_png_at_the_limit_is_decoded(self) -> None:
        squeeze = zlib.compressobj(9)
        rows = b"".join(squeeze.compress(b"\0" * 5001) for _ in range(5000)) + squeeze.flush()
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 5000, 5000, 8, 0, 0, 0, 0))
        data = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", rows) + png_chunk(b"IEND")
        assert len(data) < 30_000
        assert decode(data, longest_side=1000).pixels.shape == (1000, 1000, 3)

    @pytest.mark.parametrize("name", [b"tEXt", b"zzZz", b"IDAT"])
    def test_countless_png_chunks(self, name: bytes) -> None:
        parts = png_chunk(name, b"a\0b") * 1_200_000
        assert refusal(png(64, 64, b"\0" * 193 * 64, before=parts)).code == "unsupported-format"

    def test_text_that_swells_a_thousandfold(self) -> None:
        text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 40_000_000, 9))
        refused = refusal(png(64, 64, b"\0" * 193 * 64, before=text))
        assert refused.code == "too-much-metadata"
        assert "1,048,576 bytes in one of its texts" in refused.detail
        assert "MAX_TEXT" not in refused.detail

    def test_many_texts_that_swell(self) -> None:
        text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 1_040_000, 9))
        assert refusal(png(64, 64, b"\0" * 193 * 64, before=text * 1000)).code == "too-much-metadata"

    def test_a_colour_profile_that_swells(self) -> None:
        profile = png_chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 40_000_000, 9))
        assert refusal(png(64, 64, b"\0" * 193 * 64, before=profile)).code == "too-much-metadata"

    @pytest.mark.parametrize("part", [b"\xff\xfe\0\2", b"\xff\xed\0\4ab", b"\0", b"\xff"])
    def test_countless_jpeg_segments_or_junk_between_them(self, part: bytes) -> None:
        data = encoded(quarters(), "JPEG")
        after_jfif = 4 + int.from_bytes(data[4:6])
        bomb = data[:after_jfif] + part * (19_000_000 // len(part)) + data[after_jfif:]
        assert refusal(bomb).code == "unsupported-format"

    def test_a_progressive_jpeg_of_countless_passes(self) -> None:
        data = encoded(Image.new("L", (5000, 5000)), "JPEG", progressive=True)
        last_pass = data[data.rindex(b"\xff\xda") : -2]
        refused = refusal(data[:-2] + last_pass * 1000 + data[-2:])
        assert refused.code == "too-many-pixels"
        assert "passes" in refused.detail

    def test_memory_stays_small_for_what_the_header_refuses(self) -> None:
        data = png(30_000, 30_000, b"\0" * 1000)
        tracemalloc.start()
        refusal(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


SEEDS = {
    format: encoded(
        quarters(40, 24), format, **({"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"} if format != "GIF" else {})
    )
    for format in ("JPEG", "PNG", "WEBP")
}
PROGRESSIVE = encoded(quarters(40, 24), "JPEG", progressive=True)


@settings(max_examples=400)
@given(
    seed=st.sampled_from([*SEEDS.values(), PROGRESSIVE]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=12),
    length=st.integers(0, 2000),
    longest_side=st.sampled_from([None, 16]),
)
def test_a_damaged_file_is_a_picture_or_a_refusal_and_nothing_else(
    seed: bytes, changes: list[tuple[int, int]], length: int, longest_side: int | None
) -> None:
    damaged = bytearray(seed)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    try:
        image = decode(bytes(damaged[: len(damaged) - length % 7]), longest_side=longest_side)
    except ImageRefused as refused:
        assert refused.detail.startswith(("Found", "Image size"))  # noqa: PT017
    else:
        assert image.pixels.ndim == 3


class TestCrop:
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[None, :, None], (50, 100, 3))

    def test_a_box_is_x1_y1_x2_y2(self) -> None:
        crop = DecodedImage(self.ramp, 100, 50, "PNG").crop((10, 5, 30, 45))
        assert crop.shape == (40, 20, 3)
        assert (crop[0, 0, 0], crop[0, -1, 0]) == (10, 29)

    def test_a_box_in_full_pixels_cuts_a_scaled_picture_at_the_same_place(self) -> None:
        crop = DecodedImage(self.ramp, 400, 200, "JPEG").crop((40, 20, 120, 180))
        assert crop.shape == (40, 20, 3)
        assert crop[0, 0, 0] == 10

    def test_a_margin_is_a_share_of_each_side_and_ends_at_the_border(self) -> None:
        image = DecodedImage(self.ramp, 100, 50, "PNG")
        assert image.crop((40, 20, 60, 30), margin=0.1).shape == (12, 24, 3)
        assert image.crop((0, 0, 100, 50), margin=0.5).shape == (50, 100, 3)

    @given(st.tuples(*[st.floats(-500, 500)] * 4), st.floats(0, 1))
    def test_no_box_gives_an_empty_crop(self, box: tuple[float, float, float, float], margin: float) -> None:
        x1, y1, x2, y2 = box
        crop = DecodedImage(self.ramp, 200, 100, "PNG").crop(
            (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), margin
        )
        assert min(crop.shape) >= 1


class TestResize:
    with np.load(OPENCV) as reference:
        opencv = dict(reference)

    @pytest.mark.parametrize("case", [name for name in opencv if name != "pixels"])
    def test_without_antialias_it_is_opencvs(self, case: str) -> None:
        """As 4.10 and 5.0 gave them, INTER_LINEAR and INTER_CUBIC: another version must not change what models see."""
        wanted = self.opencv[case].astype(int)
        interpolation = "bilinear" if case.startswith("bilinear") else "bicubic"
        found = resize(
            self.opencv["pixels"],
            wanted.shape[1],
            wanted.shape[0],
            interpolation=interpolation,
            antialias=False,
        )
        assert np.array_equal(found, wanted)

    def test_with_antialias_a_fine_pattern_becomes_its_mean(self) -> None:
        stripes = np.zeros((128, 128, 3), np.uint8)
        stripes[:, ::2] = 200
        averaged = resize(stripes, 16, 16, interpolation="bilinear", antialias=True)
        assert abs(averaged[4:-4, 4:-4].astype(int) - 100).max() <= 2
        sampled = resize(stripes[:, :-3], 16, 16, interpolation="bilinear", antialias=False)
        assert np.ptp(sampled) > 100

    @pytest.mark.parametrize("antialias", [False, True])
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    def test_the_same_size_changes_nothing(self, interpolation: str, antialias: bool) -> None:
        pixels = self.opencv["pixels"]
        same = resize(pixels, 61, 47, interpolation=interpolation, antialias=antialias)  # type: ignore[arg-type]
        assert np.array_equal(same, pixels)


class TestModelInput:
    pixels = np.asarray(quarters(64, 32))

    def card(self, *, keep_aspect: bool = False, **changes: object) -> ModelCard:
        written = embedder_card()
        written["resize"]["keep_aspect"] = keep_aspect
        written["input"] = {k: v for k, v in (written["input"] | changes).items() if v is not None}
        return ModelCard.from_dict(written)

    def test_values_are_scaled_then_normalised_channel_by_channel(self) -> None:
        card = self.card(scale=1 / 255, mean=[0.5, 0.4, 0.3], std=[0.2, 0.1, 0.5])
        prepared = model_input(self.pixels, card)
        assert prepared.shape == (3, 24, 32)
        assert prepared.dtype == np.float32
        assert prepared[:, 2, 2] == pytest.approx([(1 - 0.5) / 0.2, -0.4 / 0.1, -0.3 / 0.5], rel=1e-5)

    def test_blue_comes_first_in_bgr_with_its_own_mean(self) -> None:
        card = self.card(colour_order="BGR", scale=1, mean=[10, 20, 30], std=[1, 1, 1])
        assert model_input(self.pixels, card)[:, 2, 2] == pytest.approx([-10, -20, 225])

    def test_a_graph_that_normalises_gets_the_pixels(self) -> None:
        card = self.card(normalisation_in_graph=True, dtype="uint8", scale=None, mean=None, std=None)
        prepared = model_input(self.pixels, card)
        assert prepared.dtype == np.uint8
        assert prepared[:, 2, 2].tolist() == list(RED)

    def test_keeping_the_aspect_leaves_grey_below_or_at_the_right(self) -> None:
        card = self.card(keep_aspect=True)
        prepared = model_input(self.pixels, card)
        assert corners(np.clip(prepared[:, :16] * 128 + 127, 0, 255).transpose(1, 2, 0)) == [
            RED,
            GREEN,
            BLUE,
            WHITE,
        ]
        assert (prepared[:, 16:] == 0).all()


def test_an_encoded_reference_picture_carries_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    decoded = decode(encoded(quarters(), "JPEG", quality=95, exif=exif, comment=b"home address"))
    data = encode_jpeg(decoded.pixels)
    written = Image.open(io.BytesIO(data))
    assert not written.getexif()
    assert "comment" not in written.info
    assert corners(decode(data).pixels) == [RED, GREEN, BLUE, WHITE]


class TestQualityFindings:
    @staticmethod
    def checks(side: int = 200, check: int = 12) -> Image.Image:
        y, x = np.mgrid[:side, :side]
        grey = np.where((x // check + y // check) % 2, 60, 190).astype(np.uint8)
        return Image.fromarray(np.dstack([grey] * 3))

    def test_a_good_picture_has_none(self) -> None:
        assert quality_findings(np.asarray(self.checks())) == ()

    @pytest.mark.parametrize(
        ("finding", "pixels"),
        [
            ("small", checks(40)),
            ("dark", checks().point(lambda value: value // 5)),
            ("bright", Image.new("RGB", (200, 200), (250, 250, 250))),
            ("low-contrast", checks().point(lambda value: 120 + value // 8)),
            ("blurred", checks(400, 50).filter(ImageFilter.GaussianBlur(8))),
        ],
    )
    def test_each_fault_is_found(self, finding: str, pixels: Image.Image) -> None:
        assert finding in quality_findings(np.asarray(pixels))

    def test_a_tiny_crop_is_judged_without_an_error(self) -> None:
        assert "small" in quality_findings(np.zeros((1, 2, 3), np.uint8))
