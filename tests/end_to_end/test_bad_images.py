"""Whatever a till sends as a picture: the right answer, or a refusal that names the fault and leaves nothing behind."""

import csv
import io
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from tests.end_to_end.conftest import fills
from tests.live import LiveService

MEGABYTE = 1 << 20
# What a camera stores of an upright scene that a viewer is to turn by this orientation.
STORED_FOR = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def black_png(width: int, height: int, rows: int | None = None) -> bytes:
    """A grey PNG, made without ever holding its pixels: about a kilobyte for each million.

    Args:
        rows: that really follow; None for all.
    """

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    pixels = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def stored(service: LiveService) -> tuple[int, set[Path]]:
    """How many recognitions have a row, and the files of the service's media folder."""
    connection = psycopg2.connect(service.environ["DATABASE_URL"])
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM checkout_recognition")
            (rows,) = cursor.fetchone()
    finally:
        connection.close()
    return rows, {path for path in (service.data_dir / "media").rglob("*") if path.is_file()}


@pytest.fixture
def nothing_stored(live_service: LiveService) -> Iterator[None]:
    """The service holds no row and no file more than before, at the latest a moment after its answer."""
    before = stored(live_service)
    yield
    deadline = time.monotonic() + 10
    while (after := stored(live_service)) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert after == before


@pytest.fixture(scope="module")
def product_crop(demo_catalogue: Path) -> tuple[Image.Image, str]:
    """The main body of a picture of the gallery, higher than wide, and its SKU: it finds itself."""
    with (demo_catalogue / "gallery.csv").open() as file:
        for row in csv.DictReader(file):
            x1, y1, x2, y2 = (round(float(row[side])) for side in ("x1", "y1", "x2", "y2"))
            if y2 - y1 > 1.2 * (x2 - x1):
                with Image.open(demo_catalogue / row["image"]) as picture:
                    return picture.convert("RGB").crop((x1, y1, x2, y2)), row["sku"]
    raise LookupError("no picture of the gallery shows a product that is higher than wide")


PICTURE = Image.linear_gradient("L").convert("RGB")
JPEG = encoded(PICTURE, "JPEG")
PNG = encoded(PICTURE, "PNG")
FRAMES = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'

SWOLLEN = PngInfo()
SWOLLEN.add_text("comment", "x" * 40_000_000, zip=True)

REFUSED: dict[str, tuple[bytes, int, str]] = {
    "0 bytes": (b"", 400, "image-empty"),
    "PNG with a text of 40 MB": (encoded(PICTURE, "PNG", pnginfo=SWOLLEN), 413, "image-too-much-metadata"),
    "text": (b"What a lovely picture this would be.", 400, "image-not-an-image"),
    "a program": (b"\x7fELF" + bytes(2_000), 400, "image-not-an-image"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], 400, "image-truncated"),
    "JPEG of three bytes": (JPEG[:3], 400, "image-truncated"),
    "truncated PNG": (PNG[: len(PNG) // 2], 400, "image-truncated"),
    "truncated WebP": (encoded(PICTURE, "WEBP")[:-40], 400, "image-truncated"),
    "PNG with wrong bytes": (PNG[:-20] + b"\0" * 8 + PNG[-12:], 400, "image-truncated"),
    "SVG": (SVG, 415, "image-unsupported-format"),
    "TIFF": (encoded(PICTURE, "TIFF"), 415, "image-unsupported-format"),
    "EPS": (encoded(PICTURE, "EPS"), 415, "image-unsupported-format"),
    "GIF": (encoded(PICTURE, "GIF"), 415, "image-unsupported-format"),
    "BMP": (encoded(PICTURE, "BMP"), 415, "image-unsupported-format"),
    "animated PNG": (encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), 400, "image-animated"),
    "animated WebP": (encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), 400, "image-animated"),
    "1 x 1 PNG": (encoded(Image.new("RGB", (1, 1)), "PNG"), 400, "image-too-small"),
    "1 x 1 JPEG": (encoded(Image.new("RGB", (1, 1)), "JPEG"), 400, "image-too-small"),
    "a line": (encoded(Image.new("RGB", (2_000, 1)), "PNG"), 400, "image-too-small"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
@pytest.mark.usefixtures("nothing_stored")
def test_a_bad_picture_is_refused_by_name(recognise, fault):
    data, status, code = REFUSED[fault]
    refused = recognise(data)
    body = refused.json()
    assert (refused.status_code, body["code"]) == (status, code)
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert body["type"] == f"urn:checklane:problem:{code}"
    assert body["status"] == status
    assert "ound" in body["detail"], "the detail names what was found"


@pytest.mark.usefixtures("nothing_stored")
def test_a_picture_refused_under_a_key_is_refused_again_under_it(recognise):
    key = {"Idempotency-Key": "a truncated picture"}
    for _ in range(2):
        assert recognise(JPEG[:900], headers=key).json()["code"] == "image-truncated"


def single_colour(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "red")


BOMBS = {
    "30,000 x 30,000 PNG": lambda: black_png(30_000, 30_000),
    "60,000 x 60,000 PNG in 1 kB": lambda: black_png(60_000, 60_000, rows=3),
    "7,000 x 7,000 WebP in 36 bytes": lambda: encoded(single_colour(7_000, 7_000), "WEBP", lossless=True, method=0),
    "9,000 x 9,000 WebP in 1 kB": lambda: encoded(single_colour(9_000, 9_000), "WEBP", lossless=True, method=0),
    "65,500 x 65,500 JPEG": lambda: JPEG.replace(struct.pack(">HH", 256, 256), struct.pack(">HH", 65_500, 65_500)),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.usefixtures("nothing_stored")
def test_a_pixel_bomb_is_refused_and_never_unpacked(recognise, live_service, bomb):
    data = BOMBS[bomb]()
    before = live_service.peak_memory()
    refused = recognise(data)
    assert (refused.status_code, refused.json()["code"]) == (413, "image-too-many-pixels")
    grown = {name: peak - before[name] for name, peak in live_service.peak_memory().items()}
    # Unpacked the smallest of them would take 147 MB.
    assert max(grown.values()) < 50 * MEGABYTE, grown


def test_the_largest_picture_taken_stays_within_bounds(recognise, live_service):
    """49 megapixels in 60 kB: unpacked once, as 147 MB, in the worker alone."""
    before = live_service.peak_memory()
    answer = recognise(black_png(7_000, 7_000))
    assert answer.status_code == 201
    assert answer.json()["image"] == {"width": 7_000, "height": 7_000}
    grown = {name: peak - before[name] for name, peak in live_service.peak_memory().items()}
    assert grown["web"] < 50 * MEGABYTE
    assert grown["recognition"] < 600 * MEGABYTE


@pytest.mark.usefixtures("nothing_stored")
def test_too_many_bytes_are_refused_before_they_are_parsed(recognise, live_service):
    before = live_service.peak_memory()["web"]
    refused = recognise(JPEG + bytes(30 * MEGABYTE))
    assert (refused.status_code, refused.json()["code"]) == (413, "image-too-many-bytes")
    assert live_service.peak_memory()["web"] - before < 50 * MEGABYTE


def with_alpha(picture: Image.Image) -> Image.Image:
    """The picture with a transparent border, under which there is noise that must not show."""
    framed = ImageOps.expand(picture, 40, fill=(255, 0, 255)).convert("RGBA")
    framed.putalpha(ImageOps.expand(Image.new("L", picture.size, 255), 40, fill=0))
    return framed


FINE = {
    "JPEG": lambda picture: encoded(picture, "JPEG", quality=95),
    "progressive JPEG": lambda picture: encoded(picture, "JPEG", quality=95, progressive=True),
    "CMYK JPEG": lambda picture: encoded(picture.convert("CMYK"), "JPEG", quality=95),
    "PNG": lambda picture: encoded(picture, "PNG"),
    "interlaced by palette": lambda picture: encoded(picture.quantize(256), "PNG"),
    "alpha PNG": lambda picture: encoded(picture.convert("RGBA"), "PNG"),
    "WebP": lambda picture: encoded(picture, "WEBP", quality=95),
    "lossless WebP with alpha": lambda picture: encoded(picture.convert("RGBA"), "WEBP", lossless=True),
    "JPEG with a broken profile": lambda picture: encoded(picture, "JPEG", quality=95, icc_profile=b"no profile"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FINE)
def test_each_kind_of_picture_gives_the_same_product(recognise, product_crop, kind):
    picture, sku = product_crop
    body = recognise(FINE[kind](picture)).json()
    assert body["image"] == {"width": picture.width, "height": picture.height}
    assert fills(body["items"][0]["box"], body["image"])
    best = body["items"][0]["candidates"][0]
    assert best["product"]["sku"] == sku
    assert best["similarity"] > 0.8


def test_what_is_transparent_is_white(recognise, product_crop):
    picture, _ = product_crop
    transparent = recognise(encoded(with_alpha(picture), "PNG")).json()["items"][0]
    on_white = recognise(encoded(ImageOps.expand(picture, 40, fill="white"), "PNG")).json()["items"][0]
    assert transparent["candidates"] == on_white["candidates"]


@pytest.mark.parametrize("mode", ["L", "I;16", "1"])
def test_pictures_without_colour_are_taken(recognise, product_crop, mode):
    grey = product_crop[0].convert("L")
    if mode == "I;16":
        picture = Image.frombytes(
            "I;16", grey.size, bytes(part for value in grey.tobytes() for part in (0, value))
        )
    else:
        picture = grey.convert(mode)
    answer = recognise(encoded(picture, "PNG"))
    assert answer.status_code == 201
    if mode == "I;16":  # the upper byte is the picture
        assert answer.json()["items"] == recognise(encoded(grey, "PNG")).json()["items"]


@pytest.mark.parametrize("orientation", STORED_FOR)
def test_every_orientation_is_answered_upright(recognise, product_crop, orientation):
    """Sides and boxes are those of the picture as a person sees it; and it is turned before it is embedded."""
    picture, sku = product_crop
    turn = STORED_FOR[orientation]
    as_stored = picture if turn is None else picture.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = recognise(encoded(as_stored, "JPEG", quality=95, exif=exif)).json()
    assert body["image"] == {"width": picture.width, "height": picture.height}
    item = body["items"][0]
    assert fills(item["box"], body["image"])
    assert item["candidates"][0]["product"]["sku"] == sku
    assert item["similarity"] > 0.9


@pytest.mark.parametrize(
    "name", ["photo.svg", "photo.tiff", "photo", "../../etc/passwd", "p" * 300 + ".jpg", "ä\u202egpj.exe"]
)
def test_a_picture_is_known_by_its_content_whatever_it_is_called(recognise, name, live_service):
    before = stored(live_service)[1]
    assert recognise(JPEG, name=name).status_code == 201
    (new,) = stored(live_service)[1] - before
    assert new.suffix == ".jpeg"
    assert recognise(SVG, name="photo.jpg").status_code == 415
