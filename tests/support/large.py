"""A made-up evaluation as large as a real one: 426 types in 11 categories, 5,511 products, two classifiers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelfwise.calibration import Calibration
from shelfwise.labels import Labels, Taxonomy
from shelfwise.metrics import Interval, Ranked, mcnemar
from shelfwise.pipelines import breakdown, insights
from shelfwise.pipelines.details import Details
from shelfwise.pipelines.evaluation import Drop, Evaluation, Facts, Kind, LeakageNote, Robustness, UnknownType
from shelfwise.pipelines.scoring import TOP_K, Answers, Rows, majority, standing
from shelfwise.records import LEVELS, Product
from shelfwise.resampling import Resamples

TYPES, CATEGORIES, ROWS = 426, 11, 5_511
NASTY = "<img src=x onerror=alert(1)> & <script>alert(2)</script>"
_KINDS = ("Fresh", "Organic", "Herbal", "Family", "Travel", "Everyday", "Frozen", "Imported", "Roasted", "Classic")
_THINGS = (
    "Rice & Grains",
    "Soap, Bars",
    "Tea",
    "Noodles, Instant",
    "Creams",
    "Oils",
    "Jams, Marmalade & Spreads",
    "Mugs",
)


def labels() -> Labels:
    """426 types with commas, ampersands and one very long word, in 11 categories and 90 sub-categories."""
    names = [f"{_KINDS[i % 10]} {_THINGS[i // 10 % 8]} {i:03}" for i in range(TYPES - 2)]
    names += ["W" * 60, f"Type {NASTY}"]
    shelves = {
        name: ((f"Category {i % CATEGORIES} of Goods & Sundries", f"Shelf {i % 90}", 9),)
        for i, name in enumerate(names)
    }
    return Labels(tuple(sorted(names)), Taxonomy(shelves))


def rows_of(known: Labels, rng: np.random.Generator) -> Rows:
    """Products whose types are as uneven as real ones; every type has one, and two products are of no known type."""
    weights = 1 / np.arange(1, TYPES + 1) ** 0.9
    drawn = rng.choice(TYPES, ROWS - TYPES - 2, p=weights / weights.sum())
    given = [known.names[i] for i in [*range(TYPES), *drawn.tolist()]] + [f"Unknown {NASTY}"] * 2
    products = [
        Product(i, f"products.csv:{i + 2}", name, label, brand=f"Brand {i % 50}", text=name)
        for i, label in enumerate(given)
        for name in [f"{label} {i} g" if i % 40 else f"{NASTY} {'long ' * (i % 30)}{i}"]
    ]
    return Rows.of(products, known, rng.random(ROWS) < 0.8)


def answers(kind: Kind, name: str, rows: Rows, skill: float, rng: np.random.Generator) -> Answers:
    """Answers that are right with about the probability `skill`, and surer where they are right."""
    c = len(rows.labels)
    right = (rng.random(ROWS) < skill) & (rows.targets < c)
    near = (rows.targets + rng.integers(1, 4, ROWS) * CATEGORIES) % c  # wrong within some distance
    ranked = np.stack([np.where(right, rows.targets, near), *((near + i) % c for i in range(1, TOP_K))], axis=1)
    sure = np.where(right, rng.beta(6, 1.2, ROWS), rng.beta(2, 2, ROWS)).astype(np.float32)
    shares = np.concatenate([sure[:, None], np.repeat((1 - sure[:, None]) / 8, TOP_K - 1, axis=1)], axis=1)
    of_truth = np.where(right, sure, (1 - sure) / 20).astype(np.float32)
    logs = np.where(rows.targets < c, np.log(of_truth), -np.inf).astype(np.float32)
    calibration = Calibration(threshold=0.9, category_threshold=0.6)
    level: NDArray[np.int64] = np.where(
        sure >= 0.9, 0, np.where(sure >= 0.6, LEVELS.index("category"), LEVELS.index(""))
    )
    return Answers(kind, name, Ranked(ranked, shares, logs), calibration, 3.0, level, right, sure**2)


def large(folder: Path) -> tuple[Evaluation, Details]:
    """The evaluation and what its page shows beside it."""
    rng = np.random.default_rng(0)
    rows = rows_of(labels(), rng)
    beside = answers("baseline", "baseline", rows, 0.76, rng)
    subject = answers("model", "llama2-7b lora head", rows, 0.79, rng)
    both, resamples = (beside, subject), Resamples.draw(ROWS, draws=50)
    found = Evaluation(
        folder=folder,
        facts=_facts(rows),
        standings=tuple(
            standing(each, rows, resamples, () if each.kind == "majority" else breakdown.bands(each, rows, None))
            for each in (majority(rows), *both)
        ),
        against_baseline=mcnemar(subject.correct(rows), beside.correct(rows)),
        robustness=tuple(_robustness(each) for each in both),
        leakage=(
            LeakageNote("same_product", f"test products that {NASTY} has too", 1204, True, (f"x.csv:9: {NASTY}",)),
            LeakageNote("near_duplicate", "test products that differ in little more than a size", 31, False, ()),
        ),
    )
    return found, insights.details(both, rows)


def _robustness(of: Answers) -> Robustness:
    interval = Interval(0.04, 0.06)
    drops = (Drop("typo", 5_000, 0.8, 0.75, Interval(0.74, 0.76), 0.05, interval),)
    return Robustness(of.kind, of.name, (*drops, Drop("case", 90, 0.8, 0.75, interval, 0.05, interval)), ())


def _facts(rows: Rows) -> Facts:
    return Facts(
        run="large",
        date="2025-11-24",
        catalogue=f"{NASTY}.csv",
        fingerprint="0123456789abcdef" * 4,
        part="test",
        rows=ROWS,
        unlabelled=0,
        rejected=3,
        unknown_types=(UnknownType(f"Unknown {NASTY}", 2),),
        shared_names=int((~rows.new).sum()) if rows.new is not None else None,
        n_labels=TYPES,
        text_columns=("brand", "product"),
        split="grouped",
        split_seed=42,
        training_seed=1,
        versions={"shelfwise": "0.1.0", "python": "3.12.1", "torch": "2.11.0"},
        hardware="Intel(R) Xeon(R) Platinum 8481C, 16 logical cores; NVIDIA H100 80GB HBM3",
        command="shelfwise train 'the shop.csv' --config run/config.yaml --split run/split.json --out again\n"
        "shelfwise evaluate again --perturb",
    )
