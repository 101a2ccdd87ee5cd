"""Two lines that were asked the same queries, compared query by query: small differences show so on few queries.

They are made of the JSON form, as tables are, so that stored runs can be compared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recognition.metrics import bootstrap_interval_of_mean, sign_test


@dataclass(frozen=True)
class Paired:
    """How recall@1 differs.

    Attributes:
        line: index and strategy.
        difference: of the second less that of the first, -1..1.
        interval: 95 %, by drawing products anew with all of their queries.
        n_better: queries that the second alone answers rightly.
        n_worse: queries that the first alone answers rightly.
        p: of the sign test over products: the probability that chance alone sets at least so many products to one
            side.
    """

    line: str
    difference: float
    interval: tuple[float, float]
    n_better: int
    n_worse: int
    p: float


def pair_with_exact(report: Mapping[str, Any]) -> Iterator[Paired]:
    """Each line of a run beside its exact search."""
    exact, *others = report["lines"]
    if "right_at_1" in exact:
        for line in others:
            yield _pair(_name(line), exact["right_at_1"], line["right_at_1"], report["queries"]["products"])


def pair_runs(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Paired]:
    """Each line that both runs have; none where their known queries are not the same, or a run is too old to tell."""
    asked, again = first.get("queries"), second.get("queries")
    if asked is None or again is None or asked["sha256"] != again["sha256"]:
        return
    of_first = {_name(line): line for line in first["lines"]}
    for line in second["lines"]:
        if _name(line) in of_first:
            before = of_first[_name(line)]["right_at_1"]
            yield _pair(_name(line), before, line["right_at_1"], again["products"])


def _name(line: Mapping[str, Any]) -> str:
    return f"{line['index']} {line['strategy']}"


def _pair(name: str, first: str, second: str, products: list[int]) -> Paired:
    differences = _as_numbers(second) - _as_numbers(first)
    groups = np.array(products, np.int64)
    return Paired(
        name,
        float(differences.mean()),
        bootstrap_interval_of_mean(differences, groups),
        n_better=int((differences > 0).sum()),
        n_worse=int((differences < 0).sum()),
        p=sign_test(differences, groups),
    )


def _as_numbers(right: str) -> NDArray[np.float64]:
    return np.array([one == "1" for one in right], np.float64)
