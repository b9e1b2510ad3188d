from pathlib import Path

import pytest

from shelfwise.classifier import Classifier
from shelfwise.config import Columns
from shelfwise.errors import InputError
from shelfwise.pipelines.predict import expected_rows, predict
from shelfwise.pipelines.predict_plan import free_names
from support.predictions import ADDED, CATALOGUE, INPUTS, Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_columns_of_ours_that_the_input_has_get_a_number(job: Job) -> None:
    source = job.file("in.csv", "product,model,path,model_2\nTea a,M1,p,x\n")
    summary = job.predict(source)
    row = job.rows()[0]
    assert [row["model"], row["path"], row["model_2"]] == ["M1", "p", "x"]
    assert [row["model_3"], row["path_2"]] == ["fake", "Drinks > Hot > cold > Tea, Green"]
    assert summary.renamed == {"path": "path_2", "model": "model_3"}


def test_an_output_can_be_predicted_again(job: Job) -> None:
    job.predict(job.file("in.csv", CATALOGUE), "one.csv")
    job.predict(job.folder / "one.csv", "two.csv")
    first, second = job.rows("one.csv"), job.rows("two.csv")
    assert list(second[0]) == ["sku", "product", "price", *ADDED, *(f"{name}_2" for name in ADDED)]
    assert [row["predicted_type"] for row in second][:4] == [row["predicted_type"] for row in first][:4]


def test_free_names_never_collide() -> None:
    assert free_names(("a", "a_2"), ["a"]) == ("a_3", "a_2")
    assert free_names(("a", "b"), []) == ("a", "b")


def test_the_text_columns_of_the_run_are_joined_for_the_model(job: Job) -> None:
    source = job.file("in.csv", "brand,product\nAcme,Tea\n,Soap\n")
    job.predict(source, text_columns=("brand", "product"))
    assert job.scorer.scored == ["Acme Tea", "Soap"]


def test_a_text_column_that_the_file_lacks_is_an_error_that_names_it(job: Job) -> None:
    source = job.file("in.csv", "product\nTea\n")
    with pytest.raises(InputError, match=r"in\.csv: .*reads brand, product.*brand.* --brand COLUMN"):
        job.predict(source, text_columns=("brand", "product"))


def test_a_named_column_is_used(job: Job) -> None:
    source = job.file("in.csv", "product,artikel\nx,Tea a\n")
    job.predict(source, columns=Columns(product="artikel"))
    assert job.scorer.scored == ["Tea a"]


def test_the_input_is_never_overwritten(job: Job) -> None:
    source = job.file("in.csv", CATALOGUE)
    link = job.folder / "link.csv"
    link.symlink_to(source)
    mended = job.file("x.rejects.csv", CATALOGUE)
    for file, out in ((source, "in.csv"), (source, "link.csv"), (mended, "x.csv")):
        with pytest.raises(InputError, match="overwrite its own input"):
            job.predict(file, out, force=True)
    assert source.read_text() == mended.read_text()
    assert job.scorer.batches == []


def test_a_file_that_is_there_already_is_kept_unless_forced(job: Job) -> None:
    source = job.file("in.csv", "product\nTea\n")
    for name in ("out.csv", "out.rejects.csv"):
        old = job.file(name, "old")
        with pytest.raises(InputError, match=rf"{name}: there already is .*--force"):
            job.predict(source)
        assert old.read_text() == "old"
        job.predict(source, force=True)
        assert job.rows()[0]["product"] == "Tea"
        (job.folder / "out.csv").unlink()


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("missing.csv", "out.csv", "missing.csv"),
        ("in.csv", "out.doc", r"out\.doc: '\.doc' is no format"),
        ("in.csv", "folder.csv", r"folder\.csv: this is a folder"),
        ("in.csv", "in.csv/out.csv", r"in\.csv: not a folder"),
        ("in.csv", "out.csv", "no-run: there is no such run folder"),
    ],
)
def test_wrong_calls_are_told_before_a_model_is_loaded(
    job: Job, monkeypatch: pytest.MonkeyPatch, source: str, out: str, message: str
) -> None:
    monkeypatch.setattr(Classifier, "load", lambda *_, **__: pytest.fail("loaded"))
    job.file("in.csv", "product\nTea\n")
    (job.folder / "folder.csv").mkdir()
    with pytest.raises(InputError, match=message):
        predict(Path("no-run"), job.folder / source, job.folder / out)
    assert {path.name for path in job.folder.iterdir()} == {"in.csv", "folder.csv"}


def test_expected_rows_counts_what_is_cheap_to_count(job: Job) -> None:
    counts = {name: expected_rows(job.file(name, make())) for name, make in INPUTS.items()}
    assert counts == {
        "in.csv": 2,
        "in.tsv": 2,
        "in.jsonl": 1,  # lines that end; good enough for a progress bar
        "in.csv.gz": None,
        "in.jsonl.gz": None,
        "in.parquet": 2,
        "in.xlsx": None,
    }
    assert expected_rows(job.folder / "missing.csv") is None
    assert expected_rows(job.file("bad.parquet", b"no parquet")) is None


def test_a_column_that_the_model_does_not_read_never_rejects_a_row(job: Job) -> None:
    source = job.file("in.csv", f"product,category\nTea a,{'x' * 5_000}\n")
    assert job.predict(source).rejected == 0
