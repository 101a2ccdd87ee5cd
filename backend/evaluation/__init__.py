"""Measuring the gallery: recall, mAP, latency and size by index and strategy."""
