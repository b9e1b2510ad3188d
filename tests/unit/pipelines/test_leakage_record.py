"""The leakage that was found before training is not looked for again, unless something else is evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shelfwise import artifact
from shelfwise.config import parse
from shelfwise.data.leakage import find_leakage
from shelfwise.errors import CorruptArtifactError
from shelfwise.pipelines import leakage_record
from shelfwise.pipelines.run import prepare
from support.runs import write_catalogue

CONFIG = {"model": "baseline", "text_columns": ["brand", "product"], "split": {"strategy": "random"}}


def recorded(folder: Path) -> tuple[Path, object]:
    catalogue = write_catalogue(folder / "catalogue.csv")
    prepared = prepare(parse({**CONFIG, "catalogue": str(catalogue)}, "test"))
    document = leakage_record.document(prepared.leakage, prepared.splits, ("brand", "product"))
    artifact.write_json(folder / artifact.LEAKAGE, document)
    return folder, prepared


def test_what_is_read_back_is_what_was_found(tmp_path: Path) -> None:
    run, prepared = recorded(tmp_path)
    assert prepared.leakage  # numbered names are near duplicates of one another
    again = leakage_record.earlier(run, prepared.catalogue, prepared.splits, ("brand", "product"))
    assert again == prepared.leakage == find_leakage(prepared.catalogue, prepared.splits, ("brand", "product"))


def test_other_columns_are_looked_at_anew(tmp_path: Path) -> None:
    run, prepared = recorded(tmp_path)
    assert leakage_record.earlier(run, prepared.catalogue, prepared.splits, ("product",)) is None


def test_a_run_without_a_record_is_looked_at_anew(tmp_path: Path) -> None:
    run, prepared = recorded(tmp_path)
    (run / artifact.LEAKAGE).unlink()
    assert leakage_record.earlier(run, prepared.catalogue, prepared.splits, ("brand", "product")) is None


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 1}', '{"findings": [{"kind": "none"}]}'])
def test_a_damaged_record_is_refused(tmp_path: Path, damage: str) -> None:
    run, prepared = recorded(tmp_path)
    (run / artifact.LEAKAGE).write_text(damage, encoding="utf-8")
    with pytest.raises(CorruptArtifactError, match="Copy the run folder whole again"):
        leakage_record.earlier(run, prepared.catalogue, prepared.splits, ("brand", "product"))


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    run, _ = recorded(tmp_path)
    stored = json.loads((run / artifact.LEAKAGE).read_text(encoding="utf-8"))
    assert set(stored) == {"format", "fingerprint", "parts", "strategy", "seed", "text_columns", "findings"}
