"""The running mean of weights against its formula, step by step."""

import torch
from torch import nn

from training.averaging import WeightAverage


def test_the_mean_is_the_weighted_one_of_all_steps_and_starts_anew() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = WeightAverage(network, decay=0.6)
    seen: list[torch.Tensor] = []
    for step in range(6):
        with torch.no_grad():
            network[0].weight.normal_()
        network(torch.randn(4, 3))  # moves the normalisation's running mean
        average.update(network)
        seen.append(network[0].weight.detach().clone())
        kept = [min(0.6, (1 + t) / (10 + t)) for t in range(step + 1)]
        shares = [1 - kept[t] for t in range(step + 1)]
        for t in range(step + 1):
            for later in kept[t + 1 :]:
                shares[t] *= later
        wanted = sum(share * weight for share, weight in zip(shares, seen, strict=True)) / sum(shares)
        torch.testing.assert_close(average.weights(network)["0.weight"], wanted)
    means = average.weights(network)
    assert not torch.equal(means["1.running_mean"], network[1].running_mean)
    assert means["1.num_batches_tracked"] == 6

    average.reset()
    average.update(network)
    torch.testing.assert_close(average.weights(network), dict(network.state_dict()))


def test_before_the_first_step_it_is_the_network_itself() -> None:
    network = nn.Linear(2, 2)
    torch.testing.assert_close(WeightAverage(network, 0.9).weights(network), dict(network.state_dict()))


def test_a_mean_goes_on_from_what_was_kept() -> None:
    network = nn.Linear(2, 2)
    one, other = WeightAverage(network, 0.9), WeightAverage(network, 0.9)
    one.update(network)
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        network.weight.add_(1)
    one.update(network)
    other.update(network)
    torch.testing.assert_close(one.weights(network), other.weights(network), rtol=0, atol=0)
