"""How well anybody could do: how often a catalogue gives one product the same type when it lists it again.

    python benchmarks/label_ceiling.py CATALOGUE --out benchmarks/results

Rows that are one product by their text are put together. `agreement` is the chance that two rows of one product, drawn
at random, have the same type; `best` is what an answer that knew all their types would get right, the commonest of each
product. If each label is wrong by itself with probability e, two agree with probability 1 - 2e(1 - e), and `ceiling` is
1 - e. Rows without a twin say nothing, so all of it is an estimate from a fifth to a quarter of the catalogue.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import _bench


def row_of(title: str, products: Any, key: Callable[[Any], Any]) -> dict[str, Any]:
    groups: dict[Any, list[str]] = defaultdict(list)
    for product in products:
        groups[key(product)].append(product.label)
    twins = [Counter(labels) for labels in groups.values() if len(labels) > 1]
    rows = sum(each.total() for each in twins)
    agree = sum(n * (n - 1) / (each.total() - 1) for each in twins for n in each.values()) / rows
    error = (1 - np.sqrt(max(0.0, 2 * agree - 1))) / 2
    return {
        "same": title, "rows": rows, "share": round(rows / len(products), 4), "agreement": round(agree, 4),
        "best": round(sum(max(each.values()) for each in twins) / rows, 4), "ceiling": round(float(1 - error), 4),
    }  # fmt: skip


def main() -> None:
    from shelfwise.data._leakage_near import sizeless
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.data.names import name_key

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    options = parser.parse_args()
    products = read_catalogue(options.catalogue).labelled
    rows = [
        row_of("name", products, lambda p: name_key(p.name)),
        row_of("name but for its size", products, lambda p: sizeless(name_key(p.name))),
        row_of("brand and name", products, lambda p: (name_key(p.brand or ""), name_key(p.name))),
        row_of(
            "brand and name but for its size", products, lambda p: (name_key(p.brand or ""), sizeless(name_key(p.name)))
        ),
    ]
    for row in rows:
        _bench.say(row)
    _bench.write("label_ceiling", rows, options.out)


if __name__ == "__main__":
    main()
