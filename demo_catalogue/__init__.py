"""A made-up retailer's catalogue: packaged products that do not exist, drawn as pictures and checkout scenes.

It serves the demo, the tests and the training recipes, which need pictures with a known truth and no one's rights in
them. NumPy and Pillow only. The same seed gives the same picture, whatever else has been drawn before.
"""

from demo_catalogue.assortment import list_products
from demo_catalogue.folder import write_folder
from demo_catalogue.invention import more_products
from demo_catalogue.products import DemoProduct
from demo_catalogue.scenes import Scene, SceneItem, render_reference, render_reference_image, render_scene

__all__ = [
    "DemoProduct",
    "Scene",
    "SceneItem",
    "list_products",
    "more_products",
    "render_reference",
    "render_reference_image",
    "render_scene",
    "write_folder",
]
