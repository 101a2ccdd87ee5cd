"""Training data that needs no files: products that `demo_catalogue` invents, drawn when they are asked for.

The same arguments give the same pictures anywhere. Drawing costs 5 to 200 ms a picture, so each is kept once drawn;
`draw_all` draws them before loader processes start, which then share them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from demo_catalogue import DemoProduct, more_products, render_reference, render_scene
from training.data.coco import FOREGROUND, NO_BOXES, Truth
from training.data.faults import Faults, watched
from training.data.pictures import Retrieval, check_classes
from training.data.randomness import Stream, generator

# Drawing is slow: a bar for fewer of them than where files are only looked at.
WORTH_A_BAR = 50


@cache
def drawn_crop(product: DemoProduct, view: int, seed: int, side: int, margin: float) -> NDArray[np.uint8]:
    """The crop of one picture, (h, w, 3), kept once drawn: sets of one seed share products and views.

    Args:
        product: of `more_products` with the seed.
        view: its number.
        seed, side, margin: as for `GeneratedPictures`.
    """
    scene = render_reference(product, view=view, seed=seed, size=(side, side))
    pixels = np.asarray(scene.image)
    x1, y1, x2, y2 = scene.items[0].box
    along, down = margin * (x2 - x1), margin * (y2 - y1)
    left, top = max(0, round(x1 - along)), max(0, round(y1 - down))
    return pixels[top : round(y2 + down), left : round(x2 + along)].copy()


class GeneratedPictures:
    """Crops of invented products: front views, and views in any pose, light and place.

    Attributes:
        labels: (products * views,), all views of a product together.
        classes: the SKUs.
    """

    def __init__(
        self,
        n_products: int,
        views: Sequence[int],
        *,
        seed: int,
        side: int = 160,
        crop_margin: float = 0.0,
    ) -> None:
        """
        Args:
            n_products: how many, 1 to 99,999.
            views: numbers of the views of each; 0 is the studio's.
            seed: another seed, other products; 0 to 99,999.
            side: pixels of the picture that the crop is cut out of.
            crop_margin: share of the box's sides left around it.
        """
        self._products = more_products(n_products, seed)
        self._views = tuple(views)
        self._seed = seed
        self._side = side
        self._margin = crop_margin
        self.labels: NDArray[np.int64] = np.repeat(np.arange(n_products), len(self._views))
        self.classes: Sequence[str] = tuple(product.sku for product in self._products)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> NDArray[np.uint8]:
        product, view = divmod(index, len(self._views))
        return drawn_crop(self._products[product], self._views[view], self._seed, self._side, self._margin)

    def draw_all(self) -> None:
        """Draw every picture that is not drawn yet, with a progress bar."""
        for index in watched(range(len(self)), "drawing products", len(self), WORTH_A_BAR):
            self.read(index)

    def where(self, index: int) -> str:
        product, view = divmod(index, len(self._views))
        return f"generated {self.classes[product]}, view {self._views[view]}"

    def identity(self, index: int) -> object:
        return self.where(index)

    def check(self, faults: Faults, *, pictures_per_class: int = 1, thorough: bool = True) -> None:
        """Note classes with too few views; nothing can be missing."""
        check_classes(self, "generated products", faults, pictures_per_class=pictures_per_class)


def generated_retrieval(
    n_products: int,
    *,
    gallery_views: int,
    query_views: int,
    seed: int,
    side: int = 160,
    crop_margin: float = 0.0,
) -> Retrieval:
    """Queries and a gallery of invented products.

    Args:
        n_products: how many.
        gallery_views: of each product, the studio's first.
        query_views: of each product, none of them in the gallery.
        seed: another than a training set's, or its products are known.
        side: as for `GeneratedPictures`.
        crop_margin: likewise.
    """
    return Retrieval(
        GeneratedPictures(
            n_products,
            range(gallery_views, gallery_views + query_views),
            seed=seed,
            side=side,
            crop_margin=crop_margin,
        ),
        GeneratedPictures(n_products, range(gallery_views), seed=seed, side=side, crop_margin=crop_margin),
    )


class DrawnScenes(ABC):
    """Scenes of main bodies that no file holds; each is drawn when it is asked for, and kept.

    Attributes:
        classes: the main body alone.
    """

    classes: Sequence[str] = (FOREGROUND,)

    def __init__(self, n_scenes: int, first: int) -> None:
        """
        Args:
            n_scenes: how many.
            first: number of the first scene: scenes from elsewhere on in the same sequence are held-out ones.
        """
        self._numbers = range(first, first + n_scenes)
        self._drawn: dict[int, tuple[NDArray[np.uint8], Truth]] = {}

    @abstractmethod
    def _draw(self, number: int) -> tuple[NDArray[np.uint8], Truth]:
        """Draw a scene of the sequence, the same whenever it is."""

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, index: int) -> NDArray[np.uint8]:
        return self._scene(index)[0]

    def truth(self, index: int) -> Truth:
        return self._scene(index)[1]

    def crowds(self, index: int) -> Truth:
        """None are drawn."""
        return NO_BOXES

    @abstractmethod
    def where(self, index: int) -> str:
        """Which scene it is, for messages."""

    def _scene(self, index: int) -> tuple[NDArray[np.uint8], Truth]:
        if index not in self._drawn:
            self._drawn[index] = self._draw(self._numbers[index])
        return self._drawn[index]

    def draw_all(self) -> None:
        """Draw every scene that is not drawn yet, with a progress bar."""
        for index in watched(range(len(self)), "drawing scenes", len(self), WORTH_A_BAR):
            self._scene(index)

    def check(self, faults: Faults, *, thorough: bool = True) -> None:
        """Nothing can be missing, and nothing is noted."""
        del faults, thorough


class GeneratedScenes(DrawnScenes):
    """Checkout scenes of invented products."""

    def __init__(
        self,
        n_scenes: int,
        *,
        seed: int,
        n_products: int = 100,
        items: tuple[int, int] = (1, 6),
        size: tuple[int, int] = (320, 240),
        dense: bool = False,
        first: int = 0,
    ) -> None:
        """
        Args:
            n_scenes: how many.
            seed: another seed, other scenes of other products.
            n_products: that are drawn from.
            items: the fewest and the most products in a scene.
            size: width and height in pixels.
            dense: the products touch and partly hide one another.
            first: as for `DrawnScenes`.
        """
        super().__init__(n_scenes, first)
        self._products = more_products(n_products, seed)
        self._seed, self._items, self._size, self._dense = seed, items, size, dense

    def where(self, index: int) -> str:
        return f"generated scene {self._numbers[index]} of seed {self._seed}"

    def _draw(self, number: int) -> tuple[NDArray[np.uint8], Truth]:
        random = generator(self._seed, Stream.ORDER, number)
        fewest, most = self._items
        chosen = random.integers(len(self._products), size=int(random.integers(fewest, most + 1)))
        scene = render_scene(
            [self._products[product] for product in chosen.tolist()],
            seed=int(random.integers(2**31)),
            size=self._size,
            dense=self._dense,
        )
        boxes = np.array([item.box for item in scene.items], np.float32).reshape(-1, 4)
        return np.asarray(scene.image), Truth(boxes, np.zeros(len(boxes), np.int64))
