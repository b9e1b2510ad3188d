"""How many planted label errors the label audit finds, and how many of the rows that it shows are planted ones.

    python benchmarks/label_audit.py CATALOGUE [--share 0.03] [--seeds 0 1 2] [--folds 5] [--noise any near]

A copy of the catalogue gets wrong types in a share of its rows and goes through `shelfwise.pipelines.label_audit`. The
wrong types are drawn evenly: "any" among all other types, "near" among the others of the row's category, which are the
harder errors. What the catalogue itself has wrong counts as a false alarm here, so the precision is a lower bound.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from pathlib import Path
from typing import Any

import _bench


def plant(source: Path, target: Path, share: float, seed: int, noise: str) -> tuple[set[int], int]:
    """Write a copy with wrong types in it.

    Returns:
        Row ids of the wrong types, and the number of rows that have a type.
    """
    from shelfwise.config import Columns
    from shelfwise.data.catalogue import recognise
    from shelfwise.data.reader import open_rows
    from shelfwise.records import RawRow

    stream = open_rows(source)
    roles = recognise(stream.columns, Columns(), source)
    rows = [row for row in stream if isinstance(row, RawRow)]
    usable = [i for i, row in enumerate(rows) if row.values[roles["product"]].strip() and row.values[roles["type"]]]
    shelves: dict[str, set[str]] = {}
    for i in usable:
        shelf = rows[i].values[roles["category"]] if noise == "near" else ""
        shelves.setdefault(shelf, set()).add(rows[i].values[roles["type"]])
    draw = random.Random(seed)
    wrong = set(draw.sample(usable, round(share * len(usable))))
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(stream.columns)
        for i, row in enumerate(rows):
            values = dict(row.values)
            if i in wrong:
                shelf = values[roles["category"]] if noise == "near" else ""
                values[roles["type"]] = draw.choice(sorted(shelves[shelf] - {values[roles["type"]]}))
            writer.writerow(values.values())
    return {rows[i].id for i in wrong}, len(usable)


def measure(source: Path, share: float, seed: int, folds: int, noise: str) -> list[dict[str, Any]]:
    """One row for all that was found, one for the worst as many as were planted, one a reason."""
    from shelfwise.config import Columns
    from shelfwise.pipelines.label_audit import audit_labels

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "planted.csv"
        planted, rows = plant(source, copy, share, seed, noise)
        found = audit_labels(copy, Columns(), ("product",), folds=folds, seed=seed, out=Path(folder) / "found.csv")
    suspects = [suspect.row for suspect in found.suspects]
    parts = {
        "all suspects": suspects,
        "worst, as many as planted": suspects[: len(planted)],
        **{
            reason: [suspect.row for suspect in found.suspects if suspect.reason == reason]
            for reason in ("probable label error", "conflicting name")
        },
    }
    common = {
        "input": "name",
        "noise": noise,
        "seeds": [seed],
        "folds": folds,
        "catalogue_rows": rows,
        "planted": len(planted),
    }
    return [
        {
            **common,
            "shown": what,
            "rows_shown": len(ids),
            "precision": round(len(planted.intersection(ids)) / max(len(ids), 1), 4),
            "recall": round(len(planted.intersection(ids)) / max(len(planted), 1), 4),
        }
        for what, ids in parts.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--share", type=float, default=0.03, help="of the rows that get a wrong type")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--noise", nargs="+", choices=("any", "near"), default=["any", "near"])
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for noise in options.noise:
        for seed in options.seeds:
            for row in measure(options.catalogue, options.share, seed, options.folds, noise):
                _bench.say(row)
                rows.append(row)
            _bench.write("label_audit", rows, options.out)


if __name__ == "__main__":
    main()
