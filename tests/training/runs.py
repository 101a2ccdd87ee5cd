"""Runs small enough to train in a test: a few invented products, a tiny network, dropout in it."""

from pathlib import Path

import torch

from training.checkpoint import Checkpoint, load
from training.distributed import Process
from training.train import main

ONE_PROCESS = Process(0, 1, torch.device("cpu"))
REPOSITORY = Path(__file__).parents[2]

EMBEDDER = """
program = "embedder"
name = "tiny"
out = "{out}"
epochs = 4
batch_size = 8
workers = 0
device = "cpu"
[input]
side = 32
[model]
backbone = {{ name = "PPLCNet", scale = 0.25, last_channels = 32, dropout = 0.2 }}
neck = {{ name = "BNNeck" }}
head = {{ name = "FC" }}
[losses]
CrossEntropy = {{ label_smoothing = 0.1 }}
TripletAngularMargin = {{}}
[optimiser]
learning_rate = 0.1
reference_batch = 16
weight_decay = 1e-4
[schedule]
kind = "cosine"
warmup_epochs = 1
[data]
train = [{{ kind = "generated", products = 8, views = 4, side = 40 }}]
sampler = {{ kind = "pk", pictures_per_class = 2, look_alikes = 2 }}
augmentation = {{ kind = "shitu_v2", padding = 2 }}
[evaluation]
source = {{ kind = "generated", products = 6, gallery_views = 2, query_views = 1, side = 40 }}
every_epochs = 2
"""


def written(folder: Path, text: str = EMBEDDER) -> Path:
    """A configuration of its own folder, whose run goes into `folder / "run"`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.toml"
    path.write_text(text.format(out=folder / "run"))
    return path


def trained(config: Path, *arguments: str) -> Checkpoint:
    """Run the program in this process, and read what it left."""
    assert main(["-c", str(config), *arguments]) == 0
    return load(config.parent / "run" / "latest.pt")


def same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two runs ended with the same weights, to the last bit."""
    return one.weights.keys() == other.weights.keys() and all(
        torch.equal(value, other.weights[name]) for name, value in one.weights.items()
    )


PAIR = (
    EMBEDDER.replace('program = "embedder"', 'program = "pair"')
    .replace("CrossEntropy = {{ label_smoothing = 0.1 }}\nTripletAngularMargin = {{}}", "UDML = {{}}")
    .replace("epochs = 4", "epochs = 2")
    .replace("every_epochs = 2", "every_epochs = 1")
)

DETECTOR = """
program = "detector"
name = "tiny-detector"
out = "{out}"
epochs = 2
batch_size = 4
workers = 0
device = "cpu"
[input]
side = 64
interpolation = "bilinear"
[model]
backbone = {{ name = "PPLCNet", scale = 0.25 }}
neck_channels = 16
[averaging]
decay = 0.9
reset_epochs = 1
[optimiser]
learning_rate = 0.01
reference_batch = 4
[data]
train = [{{ kind = "generated", scenes = 8, most_items = 2, width = 96, height = 80 }}]
[evaluation]
source = {{ kind = "generated", scenes = 3, most_items = 2, width = 96, height = 80, seed = 2 }}
"""
