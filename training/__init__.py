"""Where models are made: networks in PyTorch, and the scripts that turn them into model folders for serving.

It may use `recognition` and `demo_catalogue`; nothing that serves imports it, so that serving needs no PyTorch.
"""
