"""What each of two processes does for `test_distributed`, which starts this by torchrun; each writes what it came to.

torchrun --nproc-per-node 2 -m tests.training.two_processes FOLDER
"""

import argparse
import json
import sys
from pathlib import Path

from torch.optim import SGD

from tests.training.folders import patches, small_embedder
from training.distributed import Process, started, wrapped
from training.evaluate import evaluate
from training.quantisation.pact import ActivationQuantiser, with_pact

CHECKPOINT, SCENES = "detector.pt", "scenes.json"


def figures(folder: Path, process: Process) -> dict[str, float]:
    """The AP of the folder's detector."""
    given = {"annotations": folder / SCENES, "batch_size": 2, "workers": 0}
    unasked = dict.fromkeys(("query", "gallery", "folder", "root"))
    return evaluate(folder / CHECKPOINT, argparse.Namespace(**unasked, **given), process)


def alphas(process: Process) -> list[list[float]]:
    """Where PACT cuts off after each of three steps, on patches that are others and larger in the second process."""
    network = with_pact(small_embedder()).train()
    quantisers = [one for one in network.modules() if isinstance(one, ActivationQuantiser)]
    parallel = wrapped(network, process)
    optimiser = SGD(network.parameters(), lr=0.1)
    found = []
    for step in range(3):
        pixels = patches(10 * step + process.rank, n=4) * (1 + process.rank)
        loss = parallel(pixels).embedding.square().mean()
        found.append([one.alpha.item() for one in quantisers])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return found


if __name__ == "__main__":
    place = Path(sys.argv[1])
    with started("cpu") as this:
        said = {"figures": figures(place, this), "alphas": alphas(this)}
    (place / f"{this.rank}.json").write_text(json.dumps(said))
