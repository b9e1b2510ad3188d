"""How often the promise of a precision breaks, in worlds of known truth.

    python benchmarks/thresholds.py [--worlds 150] [--rows 600 2000] [--promises 0.9 0.95] [--kinds shifted uneven]

Each world has its own scorer. Temperatures and thresholds are fitted on validation rows of the world, and the true
precision of what they accept is read off the known probabilities of 10,000 new rows. A threshold's lower bound is one
of 95%, so 5 worlds in 100 may break; `rate_high` is what 99 of 100 such benchmarks stay under if the rate is 5%. For
types the unit is a type with a threshold of its own in one world, for levels it is a world.

"honest" scorers say what is true; "shifted" ones are wrong about each type by a normal shift of its logit (standard
deviation 1); "uneven" ones are shifted, and sound too sure in some rows and too unsure in others (the logits of a row
are multiplied by a log-normal factor of standard deviation 0.4).

"clustered" rows are the answers to 150 or 400 whole clusters that share a fate, as new brands do (the logit of being
right is shifted by a normal of standard deviation 1), held against 20,000 new clusters: with the bound that takes rows
for independent, and with the one that counts clustered rows as fewer (`shelfwise.clusters`).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import _bench

sys.path.insert(0, str(_bench.ROOT / "tests"))  # the worlds are those that the tests draw
from support import promises

LEVELS = ("type", "sub_category", "category")
KINDS = {"honest": (0.0, 0.0), "shifted": (1.0, 0.0), "uneven": (1.0, 0.4)}  # shift of a type, unevenness of a row
RATE = 0.05
NEW_ROWS = 10_000
CLUSTERS, NEW_CLUSTERS = (150, 400), 20_000


def measure(kind: str, rows: int, promise: float, draws: int, seed: int) -> list[dict[str, Any]]:
    """One row for all accepted answers of each level, one for the types with thresholds of their own."""
    from shelfwise.calibration import Calibration

    random = np.random.default_rng(seed)
    shift, uneven = KINDS[kind]
    found = []
    for _ in range(draws):
        bias = random.normal(0, 1, promises.C) * shift
        validation = promises.draw(random, bias, rows, uneven)
        fitted = Calibration.fit(validation.log_probs, validation.targets, promise, promises.SHELVES.labels)
        found.append(promises.outcome(fitted, promises.draw(random, bias, NEW_ROWS, uneven)))
    common = {"scorer": kind, "rows": rows, "promise": promise, "seeds": [seed]}
    table = []
    for level, name in enumerate(LEVELS):
        tried = [world.precision[level] for world in found]
        broken = sum(precision is not None and precision < promise for precision in tried)
        share = float(np.mean([world.accepted[level] for world in found]))
        table.append({**common, "level": name, **_rate(broken, draws), "accepted_share": round(share, 4)})
    types = [precision for world in found for precision in world.of_types]
    table.append({**common, "level": "one type", **_rate(sum(p < promise for p in types), len(types))})
    return table


def measure_clusters(count: int, promise: float, draws: int, seed: int) -> list[dict[str, Any]]:
    """One row for each bound."""
    from shelfwise.thresholds import fit_threshold

    random = np.random.default_rng(seed)
    new = promises.draw_clustered(random, NEW_CLUSTERS)
    bounds = ("independent rows", "clusters")
    broken, accepted = dict.fromkeys(bounds, 0), dict.fromkeys(bounds, 0.0)
    sizes = []
    for _ in range(draws):
        seen = promises.draw_clustered(random, count)
        sizes.append(len(seen.clusters))
        for bound, clusters in zip(bounds, (None, seen.clusters), strict=True):
            threshold = fit_threshold(seen.confidence, seen.correct, promise, clusters).confidence
            taken = new.confidence >= threshold
            broken[bound] += bool(taken.any() and new.chance[taken].mean() < promise)
            accepted[bound] += float(taken.mean()) / draws
    common = {
        "scorer": "clustered",
        "clusters": count,
        "rows": round(float(np.mean(sizes))),
        "promise": promise,
        "seeds": [seed],
    }
    return [
        {**common, "bound": bound, "level": "type", **_rate(broken[bound], draws)}
        | {"accepted_share": round(accepted[bound], 4)}
        for bound in bounds
    ]


def _rate(broken: int, tried: int) -> dict[str, Any]:
    from scipy.stats import binom

    return {
        "tried": tried,
        "broken": broken,
        "rate": round(broken / max(tried, 1), 4),
        "rate_high": round(float(binom.ppf(0.99, tried, RATE)) / max(tried, 1), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=150)
    parser.add_argument("--rows", type=int, nargs="+", default=[600, 2000])
    parser.add_argument("--promises", type=float, nargs="+", default=[0.9, 0.95])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    options = parser.parse_args()
    table: list[dict[str, Any]] = []
    for promise in options.promises:
        for count in CLUSTERS:
            for row in measure_clusters(count, promise, options.worlds, options.seed):
                _bench.say(row)
                table.append(row)
    for kind in options.kinds:
        for rows in options.rows:
            for promise in options.promises:
                began = time.perf_counter()
                for row in measure(kind, rows, promise, options.worlds, options.seed):
                    _bench.say(row)
                    table.append(row)
                _bench.say(f"{time.perf_counter() - began:.0f} s")
    _bench.write("thresholds", table, options.out)


if __name__ == "__main__":
    main()
