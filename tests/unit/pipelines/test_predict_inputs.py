"""Folders, patterns and compressed files as the input of a prediction job."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from shelfwise.errors import CatalogueError, InputError
from shelfwise.pipelines.predict import expected_rows
from shelfwise.pipelines.predict_inputs import find_inputs
from support.predictions import Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "feeds").mkdir()
    job = Job(tmp_path)
    job.file("feeds/b.csv", "product,n\ntea b,1\n,2\n")
    job.file("feeds/a.csv.gz", gzip.compress(b"n,product\n3,soap a\n4,odd a\n"))
    job.file("feeds/c.jsonl", '{"product": "tea c", "n": 5}\n')
    for other in ("notes.txt", ".hidden.csv", "b.rejects.csv", "d.parquet.gz"):
        job.file(f"feeds/{other}", "product\nnot me\n")
    return job


def test_a_folder_gives_its_product_files_in_the_order_of_their_names(job: Job) -> None:
    assert [path.name for path in find_inputs(job.folder / "feeds")] == ["a.csv.gz", "b.csv", "c.jsonl"]


def test_a_pattern_gives_the_files_that_it_finds(job: Job) -> None:
    assert [path.name for path in find_inputs(job.folder / "*" / "*.csv*")] == ["a.csv.gz", "b.csv"]
    job.file("odd[1].csv", "product\nodd\n")
    assert [path.name for path in find_inputs(job.folder / "odd[1].csv")] == ["odd[1].csv"]  # the file of that name


@pytest.mark.parametrize("name", ["feeds/*.tsv", "empty"])
def test_nothing_found_is_an_error_that_names_what_can_be_read(job: Job, name: str) -> None:
    (job.folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file of products there.*\.parquet"):
        job.predict(job.folder / name, "out.csv")


def test_several_files_become_one_with_the_columns_of_the_first(job: Job) -> None:
    summary = job.predict(job.folder / "feeds", "out.csv")
    assert [(row["n"], row["product"]) for row in job.rows()] == [
        ("3", "soap a"),
        ("4", "odd a"),
        ("1", "tea b"),
        ("5", "tea c"),
    ]
    assert list(job.rows()[0])[:2] == ["n", "product"]
    assert [row["source"] for row in job.rows("out.rejects.csv")] == ["b.csv:3"]
    assert job.rows("out.rejects.csv")[0]["n"] == "2"
    assert (summary.rows, summary.files) == (5, 1)


def test_a_file_with_other_columns_is_refused_before_anything_is_predicted(job: Job) -> None:
    job.file("feeds/d.csv", "product,m\ntea,1\n")
    with pytest.raises(InputError, match=r"d\.csv: has the column 'm', unlike .*a\.csv\.gz.*folder as --out"):
        job.predict(job.folder / "feeds", "out.csv")
    assert job.scorer.batches == []


def test_several_files_become_a_folder_with_one_each_of_the_same_name(job: Job) -> None:
    seen: list[int] = []
    summary = job.predict(job.folder / "feeds", "done", progress=seen.append)
    done = job.folder / "done"
    assert sorted(path.name for path in done.iterdir()) == ["a.csv.gz", "b.csv", "b.rejects.csv", "c.jsonl"]
    assert gzip.decompress((done / "a.csv.gz").read_bytes()).startswith(b"n,product,predicted_type")
    assert json.loads((done / "c.jsonl").read_text())["predicted_type"] == "Tea, Green"
    assert (summary.rows, summary.predicted, summary.rejected, summary.files) == (5, 4, 1, 3)
    assert (summary.out, summary.rejects) == (done, done)
    assert seen == [2, 4, 5]


def test_a_folder_is_resumed_at_the_file_that_was_not_finished(job: Job) -> None:
    job.scorer.fail_on = "tea c"
    with pytest.raises(RuntimeError, match="device is gone"):
        job.predict(job.folder / "feeds", "done")
    job.scorer.fail_on = None
    job.scorer.batches.clear()
    with pytest.raises(InputError, match=r"done: an unfinished job.*--resume.*--force"):
        job.predict(job.folder / "feeds", "done")
    summary = job.predict(job.folder / "feeds", "done", resume=True)
    assert job.scorer.scored == ["tea c"]
    assert (summary.rows, summary.rejected, summary.resumed, summary.files) == (5, 1, 4, 3)
    assert not [path for path in (job.folder / "done").iterdir() if path.name.startswith(".")]


def test_a_changed_file_is_not_taken_for_a_finished_one(job: Job) -> None:
    job.scorer.fail_on = "tea c"
    with pytest.raises(RuntimeError, match="device is gone"):
        job.predict(job.folder / "feeds", "done")
    job.file("feeds/b.csv", "product,n\ntea new,1\n")
    with pytest.raises(InputError, match=r"b\.csv: there already is such a file"):
        job.predict(job.folder / "feeds", "done", resume=True)


def test_two_files_of_one_name_cannot_go_into_one_folder(job: Job) -> None:
    for folder in ("x", "y"):
        (job.folder / folder).mkdir()
        job.file(f"{folder}/same.csv", "product\ntea\n")
    with pytest.raises(InputError, match=r"same\.csv: 2 of the files have this name"):
        job.predict(job.folder / "[xy]" / "*.csv", "done")


def test_expected_rows_adds_up_what_is_cheap_to_count(job: Job) -> None:
    assert expected_rows(job.folder / "feeds" / "[bc]*") == 3  # without b.rejects.csv
    assert expected_rows(job.folder / "feeds") is None  # one is compressed


@pytest.mark.parametrize("name", ["in.csv.zst", "in.jsonl.zst", "in.tsv.zst"])
def test_zstandard_files_are_read(job: Job, name: str) -> None:
    texts = {"csv": "product,n\ntea,1\n", "tsv": "product\tn\ntea\t1\n", "jsonl": '{"product": "tea", "n": 1}\n'}
    job.predict(job.file(name, pa.compress(texts[name.split(".")[1]].encode(), codec="zstd", asbytes=True)))
    assert [(row["product"], row["n"]) for row in job.rows()] == [("tea", "1")]


def test_a_cut_zstandard_file_is_an_error_that_says_so(job: Job) -> None:
    whole = pa.compress(b"product\n" + b"tea\n" * 999, codec="zstd", asbytes=True)
    with pytest.raises(CatalogueError, match=r"in\.csv\.zst:\d+: the Zstandard file is damaged"):
        job.predict(job.file("in.csv.zst", whole[:-3]))


def test_a_compressed_name_for_a_format_that_is_compressed_already_is_refused(job: Job) -> None:
    with pytest.raises(InputError, match=r"out\.parquet\.gz: such a file is compressed already"):
        job.predict(job.file("in.csv", "product\ntea\n"), "out.parquet.gz")
