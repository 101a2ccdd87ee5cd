"""The learning rate as a function of the step: cosine or steps, with a linear warm-up, scaled with the batch.

A rate depends on the step alone, so a resumed run needs to know no more than its step to go on as it was.
"""

import bisect
import math

from training.settings import PiecewiseSchedule, Schedule


def scaled_learning_rate(learning_rate: float, *, total_batch: int, reference_batch: int) -> float:
    """The rate for another batch than the one it was found for: in proportion.

    Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 2.1. PaddleClas and PaddleDetection leave the sum
    to their users.

    Args:
        learning_rate: as the recipe states it.
        total_batch: pictures of a step, over all processes.
        reference_batch: pictures of a step in the recipe, over all its processes.
    """
    return learning_rate * total_batch / reference_batch


def learning_rate_factor(schedule: Schedule, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """What the rate is multiplied by at a step.

    The warm-up rises in a line from its start to the rate itself. Behind it a cosine falls from 1 to the end factor
    over all the steps that are left, as in PaddleClas; PaddleDetection's counts from the first step of all, which
    over PicoDet's 300 steps of warm-up differs by less than 1e-5.

    Args:
        schedule: the settings.
        step: 0 is the first; at most epochs * steps_per_epoch - 1.
        steps_per_epoch: of the run.
        epochs: of the run.
    Returns:
        0 to 1, but for a piecewise schedule whose factors are greater.
    """
    warmup_steps = schedule.warmup_steps or round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return schedule.warmup_start + (1 - schedule.warmup_start) * step / warmup_steps
    if isinstance(schedule, PiecewiseSchedule):
        return (1.0, *schedule.factors)[bisect.bisect_right(schedule.epochs, step / steps_per_epoch)]
    share = (step - warmup_steps) / max(1, epochs * steps_per_epoch - warmup_steps)
    return schedule.end_factor + (1 - schedule.end_factor) * (1 + math.cos(math.pi * share)) / 2
