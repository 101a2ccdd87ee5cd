"""From an image to ranked products: images, models, gallery, ranking, and the metrics that judge them.

Plain Python on NumPy, Pillow, ONNX Runtime and pymilvus. Knows no Django, no torch and no global settings:
what a step needs comes through its constructor, and what it finds leaves as frozen values.
"""
