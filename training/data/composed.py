"""Scenes composed of real products: pictures on white ground, cut out and laid on a drawn surface.

Invented packages have straight edges; fruit, bags and bottles have not. Shops' own pictures on white are at hand for
most catalogues, and a detector that has seen them among one another finds real things better than one that has not.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from demo_catalogue.photograph import Look, develop
from demo_catalogue.scenes import render_scene
from demo_catalogue.surroundings import Background
from training.data.coco import Truth
from training.data.faults import BadData
from training.data.generated import DrawnScenes
from training.data.pictures import ListedPictures
from training.data.randomness import Stream, generator

# How far from pure white the ground may be, as the sum over the channels.
WHITENESS = 30
# A cut-out that fills less of its picture than this, or nearly all of it, stood on no white ground.
SHARES = (0.05, 0.95)
# An item of which less is seen counts as hidden: it is taken out again.
LEAST_VISIBLE = 0.5
# Sides of an item as a share of the picture's shorter side.
LOOSE_SIZES, DENSE_SIZES = (0.2, 0.55), (0.1, 0.17)
TRIES = 8
# Share of dense scenes that stand on a shelf; the others lie anywhere.
SHELVES = 0.7


def cut_out(picture: NDArray[np.uint8]) -> Image.Image | None:
    """Take the white ground away that reaches the border.

    Args:
        picture: (h, w, 3) RGB.
    Returns:
        The product as RGBA, cut to its bounds; None if there is no such ground, or nothing on it.
    """
    framed = Image.new("RGB", (picture.shape[1] + 2, picture.shape[0] + 2), "white")
    framed.paste(Image.fromarray(picture), (1, 1))
    flooded = framed.copy()
    key = (255, 0, 255)
    ImageDraw.floodfill(flooded, (0, 0), key, thresh=WHITENESS)
    ground = (np.asarray(flooded) == key).all(axis=-1)
    share = 1 - ground[1:-1, 1:-1].mean()
    if not SHARES[0] <= share <= SHARES[1]:
        return None
    # A pixel less all around, and soft: white shines through at the edge.
    alpha = Image.fromarray(np.where(ground, 0, 255).astype(np.uint8)).filter(ImageFilter.MinFilter(3))
    framed.putalpha(alpha.filter(ImageFilter.GaussianBlur(0.7)))
    bounds = alpha.getbbox()
    return None if bounds is None else framed.crop(bounds)


class ComposedScenes(DrawnScenes):
    """Scenes of cut-out products."""

    def __init__(
        self,
        pictures: ListedPictures,
        n_scenes: int,
        *,
        seed: int,
        items: tuple[int, int] = (1, 6),
        size: tuple[int, int] = (320, 240),
        dense: bool = False,
        first: int = 0,
    ) -> None:
        """
        Args:
            pictures: of products; those that stand on no white ground are left out.
            n_scenes: how many.
            seed: another seed, other scenes.
            items: the fewest and the most products in a scene; fewer where no more have room.
            size: width and height in pixels.
            dense: small things that touch, in rows, several of a kind side by side, as on a shelf.
            first: as for `DrawnScenes`.
        Raises:
            BadData: no picture stands on white ground.
        """
        super().__init__(n_scenes, first)
        found = [cut_out(pictures.read(index)) for index in range(len(pictures))]
        self._cut_outs = [one for one in found if one is not None]
        if not self._cut_outs:
            raise BadData(
                f"{pictures.source}: found no picture on white ground, wanted one or more to cut out"
            )
        self._source = pictures.source
        self._seed, self._items, self._size, self._dense = seed, items, size, dense

    def where(self, index: int) -> str:
        return f"composed scene {self._numbers[index]} of {self._source}"

    def _draw(self, number: int) -> tuple[NDArray[np.uint8], Truth]:
        random = generator(self._seed, Stream.ORDER, number)
        n_items = int(random.integers(self._items[0], self._items[1] + 1))
        background: Background | None = "shelf" if self._dense and random.random() < SHELVES else None
        frame = render_scene(
            [], seed=int(random.integers(2**31)), size=self._size, background=background
        ).image
        owners = np.full((frame.height, frame.width), -1, np.int16)
        places = self._in_rows(n_items, random) if self._dense else self._at_random(n_items, random)
        covered = []
        for item, (cut, x, y) in enumerate(places):
            covered.append(_lay(frame, owners, cut, x, y, item))
        picture = (np.asarray(frame, np.float32) / 255) ** 2
        image = develop(picture, Look.drawn(random, gentle=True), random)
        boxes = []
        for item, alone in enumerate(covered):
            rows, columns = np.nonzero(owners == item)
            if alone and rows.size >= LEAST_VISIBLE * alone:
                boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        found = np.array(boxes, np.float32).reshape(-1, 4)
        return np.asarray(image), Truth(found, np.zeros(len(found), np.int64))

    def _at_random(self, n_items: int, random: np.random.Generator) -> list[tuple[Image.Image, int, int]]:
        """Things of any size anywhere; each tries to hide as little as it can of those before."""
        width, height = self._size
        taken: list[tuple[int, int, int, int]] = []
        places = []
        for _ in range(n_items):
            share = random.uniform(*LOOSE_SIZES) * (1 if n_items < 4 else 0.7)
            cut = self._drawn_item(
                random, share * min(width, height), turn=180.0 if random.random() < 0.3 else 15.0
            )
            tries = []
            for _ in range(TRIES):
                x = int(random.integers(-cut.width // 8, max(1, width - cut.width * 7 // 8)))
                y = int(random.integers(-cut.height // 8, max(1, height - cut.height * 7 // 8)))
                box = (x, y, x + cut.width, y + cut.height)
                tries.append((sum(_shared(box, other) for other in taken), x, y))
            _, x, y = min(tries)
            taken.append((x, y, x + cut.width, y + cut.height))
            places.append((cut, x, y))
        return places

    def _in_rows(self, n_items: int, random: np.random.Generator) -> list[tuple[Image.Image, int, int]]:
        """Rows from above to below, each thing against its neighbour, one to four of a kind side by side."""
        width, height = self._size
        side = random.uniform(*DENSE_SIZES) * min(width, height)
        n_rows = max(1, round(height / (side * random.uniform(1.0, 1.25))))
        places: list[tuple[Image.Image, int, int]] = []
        for row in range(n_rows):
            floor = round((row + 1) * height / n_rows - random.uniform(0, 0.1) * side)
            x = round(random.uniform(-0.5, 0.5) * side)
            while x < width and len(places) < n_items:
                kind = self._any_kind(random)
                for _ in range(int(random.integers(1, 5))):
                    cut = self._drawn_item(random, side * random.uniform(0.92, 1.08), turn=4.0, kind=kind)
                    if x >= width or len(places) == n_items:
                        break
                    places.append((cut, x, floor - cut.height))
                    x += round(cut.width * random.uniform(0.9, 1.02))
        return places

    def _any_kind(self, random: np.random.Generator) -> Image.Image:
        return self._cut_outs[int(random.integers(len(self._cut_outs)))]

    def _drawn_item(
        self, random: np.random.Generator, side: float, *, turn: float, kind: Image.Image | None = None
    ) -> Image.Image:
        """A cut-out of so many pixels at its longer side, turned a little, lighter or darker."""
        kind = kind or self._any_kind(random)
        scale = side / max(kind.size)
        small = kind.resize(
            (max(4, round(kind.width * scale)), max(4, round(kind.height * scale))),
            Image.Resampling.BILINEAR,
        )
        if random.random() < 0.5:
            small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        turned = small.rotate(float(random.uniform(-turn, turn)), Image.Resampling.BILINEAR, expand=True)
        light = float(random.uniform(0.75, 1.1))
        red, green, blue, alpha = turned.split()
        lit = [
            channel.point([min(255, round(value * light)) for value in range(256)])
            for channel in (red, green, blue)
        ]
        merged = Image.merge("RGBA", (*lit, alpha))
        bounds = alpha.getbbox()
        return merged if bounds is None else merged.crop(bounds)


def _shared(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> int:
    """Pixels that two boxes have in common."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


def _lay(frame: Image.Image, owners: NDArray[np.int16], cut: Image.Image, x: int, y: int, item: int) -> int:
    """Lay an item on the frame with a soft shadow, and note whose pixels they are now; in place.

    Returns:
        Pixels that it covers.
    """
    alpha = Image.new("L", frame.size, 0)
    alpha.paste(cut.getchannel("A"), (x, y))
    reach = max(2, max(cut.size) // 14)
    shadow = ImageChops.offset(alpha, reach // 3, reach // 2).filter(ImageFilter.GaussianBlur(reach / 2))
    dark = shadow.point([round(value * 0.4) for value in range(256)])
    frame.paste((0, 0, 0), (0, 0), dark)
    whole = Image.new("RGB", frame.size)
    whole.paste(cut.convert("RGB"), (x, y))
    frame.paste(whole, (0, 0), alpha)
    seen = np.asarray(alpha) > 127
    owners[seen] = item
    return int(seen.sum())
