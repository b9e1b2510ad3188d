from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shelfwise.config import TrainConfig
from shelfwise.pipelines.run import calibrate, prepare
from shelfwise.thresholds import NEVER
from support.evaluations import FirstHit, write_catalogue


def test_a_run_is_calibrated_with_its_taxonomy(tmp_path: Path) -> None:
    prepared = prepare(TrainConfig(catalogue=write_catalogue(tmp_path / "products.csv"), model="baseline"))
    prepared = replace(prepared, validation=prepared.train)
    fitted = calibrate(FirstHit(prepared.labels), prepared)
    # It takes ready rice for rice: not sure of type and sub-category, always right about the category.
    assert (fitted.threshold, fitted.sub_category_threshold) == (NEVER, NEVER)
    assert fitted.category_threshold < NEVER
