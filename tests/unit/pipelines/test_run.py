from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shelfwise.config import SplitConfig, TrainConfig
from shelfwise.pipelines.run import calibrate, held_out_together, prepare
from shelfwise.thresholds import NEVER
from support.evaluations import FirstHit, rows, write_catalogue


def test_a_run_is_calibrated_with_its_taxonomy(tmp_path: Path) -> None:
    prepared = prepare(TrainConfig(catalogue=write_catalogue(tmp_path / "products.csv"), model="baseline"))
    prepared = replace(prepared, validation=prepared.train)
    fitted = calibrate(FirstHit(prepared.labels), prepared).calibration
    # It takes ready rice for rice: not sure of type and sub-category, always right about the category.
    assert (fitted.threshold, fitted.sub_category_threshold) == (NEVER, NEVER)
    assert fitted.category_threshold < NEVER


@pytest.mark.parametrize(
    ("strategy", "same"),
    [
        ("random", None),
        ("grouped", [("Amber Basmati Rice 1 kg", "AMBER basmati rice - 1 kg")]),
        ("brand", [("Amber Basmati Rice 1 kg", "Amber Neem Soap 500 g"), ("Plain Rice", "PLAIN rice")]),
    ],
)
def test_what_the_split_holds_out_together_is_a_cluster_of_the_calibration(
    strategy: str, same: list[tuple[str, str]] | None, tmp_path: Path
) -> None:
    lines = [*rows(), ("AMBER basmati rice - 1 kg", "Food", "Staples", "Amber", "Rice")]
    lines += [(name, "Food", "Staples", "", "Rice") for name in ("Plain Rice", "PLAIN rice", "Other Rice")]
    catalogue = write_catalogue(tmp_path / "products.csv", lines)
    split = SplitConfig(strategy=strategy, test_size=0.2, validation_size=0.2)  # type: ignore[arg-type]
    prepared = prepare(TrainConfig(catalogue=catalogue, model="baseline", split=split))
    products = prepared.catalogue.labelled
    found = held_out_together(products, prepared.splits)
    if same is None:
        assert found is None
        return
    assert found is not None
    number = {product.name: int(cluster) for product, cluster in zip(products, found, strict=True)}
    assert all(number[one] == number[other] for one, other in same)
    assert number["Plain Rice"] != number["Other Rice"]
    assert number["Amber Basmati Rice 1 kg"] != number["Dune Basmati Rice 1 kg"]
    assert (number["Amber Basmati Rice 1 kg"] == number["Amber Brown Rice 1 kg"]) == (strategy == "brand")
