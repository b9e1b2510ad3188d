"""Prediction jobs that are killed: what they leave, and that a resumed one ends like an unbroken one, byte by byte."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from shelfwise.baseline import Baseline
from shelfwise.data.compression import open_plain
from shelfwise.errors import CorruptArtifactError, InputError, StorageError
from shelfwise.pipelines import predict_files, predict_parts
from support.predictions import BAD_ROWS, FakeScorer, Job

ROWS = 600
WORDS = ("tea", "odd", "soap", "unsure", "tea unsure")


class BatchScorer(FakeScorer):
    """A scorer whose last bits depend on the batch, as a language model's do."""

    def log_probs(self, texts: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        exact = np.exp(super().log_probs(texts))
        exact[:, 0] += 1e-4 * (len(texts) % 7)
        return np.log(exact / exact.sum(axis=1, keepdims=True)).astype(np.float32)


def write_products(path: Path, rows: int = ROWS) -> Path:
    """Names that repeat, far apart and near, and every 13th row without a name."""
    draw = random.Random(5)
    with path.open("w", encoding="utf-8") as stream:
        stream.write("sku,product,note\n")
        for number in range(rows):
            name = "" if number % 13 == 7 else f"{draw.choice(WORDS)} {draw.randrange(rows // 3)}"
            stream.write(f"{number},{name},{'x' * draw.randrange(40)}\n")
    return path


def outcome(folder: Path, name: str) -> dict[str, bytes]:
    """All files of a finished job: the output, its rejects, and nothing that was left over."""
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith(f"{name}.")}


def child(work: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def killed_at(call: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that kills itself before its n-th fsync, rename or unlink; whether it came to that."""

    def run() -> None:
        left = itertools.count(call, -1)

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def call_or_die(*args: Any, **options: Any) -> Any:
                if next(left) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            return call_or_die

        for name in ("fsync", "replace", "unlink", "rmdir"):
            setattr(os, name, dying(getattr(os, name)))
        work()

    process = child(run)
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize(
    "name",
    [
        "out.csv",
        pytest.param("out.jsonl.gz", marks=pytest.mark.slow),
        "out.parquet",
        pytest.param("out.xlsx", marks=pytest.mark.slow),
    ],
)
def test_a_kill_before_any_write_to_the_disk_loses_no_row_and_doubles_none(tmp_path: Path, name: str) -> None:
    source = write_products(tmp_path / "in.csv", 60)

    def job(folder: Path) -> Callable[[], object]:
        folder.mkdir(exist_ok=True)
        return lambda: Job(folder, BatchScorer()).predict(source, name, chunk_rows=17, resume=True)

    job(tmp_path / "whole")()
    whole = outcome(tmp_path / "whole", "out")
    assert whole.keys() == {name, "out.rejects.csv"}
    for call in itertools.count():
        folder = tmp_path / f"killed-{call}"
        if not killed_at(call, job(folder)):
            break
        out = folder / name
        if not out.exists() or predict_parts.parts_folder(out).joinpath(predict_parts.JOB).exists():
            job(folder)()
        elif predict_parts.parts_folder(out).exists():  # the very last step of clearing up: an empty folder is left
            predict_parts.parts_folder(out).rmdir()
        found = outcome(folder, "out")
        if name.endswith(".xlsx"):  # its archive holds the time
            assert found.keys() == whole.keys()
            assert found["out.rejects.csv"] == whole["out.rejects.csv"]
        else:
            assert found == whole, f"killed at call {call}"
    assert call > 20


def test_a_job_killed_at_twenty_random_moments_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    source = write_products(tmp_path / "in.csv", 2_400)
    baseline: Any = Baseline.fit(["odd thing", "soap bar", "tea green"], [0, 1, 2], 3)

    def job(folder: Path) -> Callable[[], object]:
        folder.mkdir(exist_ok=True)
        return lambda: Job(folder, baseline).predict(source, chunk_rows=40, resume=True)

    began = time.perf_counter()
    job(tmp_path / "whole")()
    took = time.perf_counter() - began
    moments, kills, done = random.Random(11), 0, []
    out = tmp_path / "killed" / "out.csv"
    while kills < 20 and not out.exists():
        process = child(job(out.parent))
        process.join(moments.uniform(0.02, took / 6))
        kills += process.exitcode is None
        process.kill()
        process.join(60)
        done.append(len(list(out.parent.glob(".out.csv.parts/*.out"))))
    assert kills >= 3
    if not out.exists() or (out.parent / ".out.csv.parts" / "job.json").exists():
        job(out.parent)()
    before_the_last = done[:-1]  # which may have come to clearing up
    assert before_the_last == sorted(before_the_last)  # no kill undid a part
    assert outcome(out.parent, "out") == outcome(tmp_path / "whole", "out")


def stopped(job: Job, source: Path, name: str = "out.csv", **options: Any) -> None:
    """A job whose classifier fails in its third part."""
    job.scorer.fail_on = "tea last"
    with pytest.raises(RuntimeError, match="device is gone"):
        job.predict(source, name, chunk_rows=2, **options)
    job.scorer.fail_on = None
    job.scorer.batches.clear()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


NAMES = ("tea a", "soap b", "tea c", "", "tea last", "soap b", "odd d")


def products(job: Job, name: str = "in.csv") -> Path:
    return job.file(name, "product,n\n" + "".join(f"{name},{i}\n" for i, name in enumerate(NAMES)))


def test_a_resumed_job_asks_only_for_what_is_not_done_and_counts_all(job: Job) -> None:
    source = products(job)
    stopped(job, source)
    reported: list[int] = []
    summary = job.predict(source, chunk_rows=2, resume=True, progress=reported.append)
    assert job.scorer.scored == ["tea last", "odd d"]  # "soap b" is remembered from before the stop
    assert reported == [4, 6, 7]
    assert (summary.rows, summary.predicted, summary.rejected, summary.resumed) == (7, 6, 1, 4)
    assert summary.scored == 5
    assert [reject.source for reject in summary.first_rejects] == ["in.csv:5"]
    assert [row["n"] for row in job.rows()] == ["0", "1", "2", "4", "5", "6"]


def test_resume_without_an_unfinished_job_is_an_ordinary_job(job: Job) -> None:
    assert job.predict(products(job), resume=True).resumed == 0


def test_an_unfinished_job_is_neither_lost_nor_resumed_by_accident(job: Job) -> None:
    source = products(job)
    stopped(job, source)
    with pytest.raises(InputError, match=r"out\.csv: an unfinished job.*--resume.*--force"):
        job.predict(source, chunk_rows=2)
    assert job.scorer.batches == []
    assert job.predict(source, chunk_rows=2, force=True).resumed == 0
    assert len(job.rows()) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [({"top_k": 1}, "top_k"), ({"chunk_rows": 3}, "chunk_rows"), ({"which": "baseline"}, "classifier"), ({}, "input")],
)
def test_an_unfinished_job_of_another_call_or_input_is_refused(job: Job, change: dict[str, Any], message: str) -> None:
    source = products(job)
    stopped(job, source)
    if not change:
        source.write_text(source.read_text().replace("tea a", "tea x"), encoding="utf-8")
    options = {"chunk_rows": 2, **change}
    with pytest.raises(InputError, match=rf"another one; it differs in: {message}\."):
        job.predict(source, resume=True, **options)
    assert job.predict(source, resume=True, force=True, **options).resumed == 0


def test_an_input_that_turns_out_wrong_leaves_nothing_for_it_will_be_another_file_when_mended(job: Job) -> None:
    source = job.file("in.csv", b"product,n\n" + b"tea,1\n" * 5 + b"caf\xe9,2\n")
    with pytest.raises(InputError, match=r"in\.csv:7: .*not UTF-8"):
        job.predict(source, chunk_rows=2)
    assert [path.name for path in job.folder.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("kind", ["out", "rejects", "answers"])
def test_a_part_that_was_changed_is_noticed(job: Job, kind: str) -> None:
    source = products(job)
    stopped(job, source)
    path = next((job.folder / ".out.csv.parts").glob(f"*.{kind}"))
    path.write_bytes(path.read_bytes()[:-2] + b"?\n")
    with pytest.raises(CorruptArtifactError, match=rf"{kind}: changed since it was written\. Start over with --force"):
        job.predict(source, chunk_rows=2, resume=True)
    assert not (job.folder / "out.csv").exists()
    job.predict(source, chunk_rows=2, force=True)
    assert len(job.rows()) == 6


@pytest.mark.parametrize("text", ["", "[]", '{"format": 9}', "null"])
def test_a_job_file_that_cannot_be_read_is_an_error_that_says_what_to_do(job: Job, text: str) -> None:
    source = products(job)
    stopped(job, source)
    (job.folder / ".out.csv.parts" / "job.json").write_text(text, encoding="utf-8")
    with pytest.raises(CorruptArtifactError, match=r"job\.json: not readable.*--force"):
        job.predict(source, chunk_rows=2, resume=True)
    assert job.predict(source, chunk_rows=2, resume=True, force=True).resumed == 0


def test_two_processes_cannot_write_the_same_output(job: Job) -> None:
    source = products(job)

    def meanwhile(done: int) -> None:
        with pytest.raises(StorageError, match="another process is writing this output"):
            Job(job.folder).predict(source, resume=True, chunk_rows=2)

    assert job.predict(source, chunk_rows=2, progress=meanwhile).rows == 7


def test_the_answers_of_old_parts_are_not_kept(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shelfwise.pipelines.predict_job.REMEMBERED_TEXTS", 4)
    kept: list[list[str]] = []
    folder = job.folder / ".out.csv.parts"
    job.predict(
        products(job),
        chunk_rows=2,
        progress=lambda _: kept.append(sorted(path.name for path in folder.glob("*.answers"))),
    )
    assert kept[-1] == ["000002.answers", "000003.answers"]


@pytest.mark.parametrize("suffix", ["parquet", "csv.gz", "jsonl.zst", "tsv.zst"])
def test_parts_of_any_format_read_as_one_file(job: Job, suffix: str) -> None:
    source = products(job)
    whole = job.predict(source, f"whole.{suffix}")
    stopped(job, source, f"stopped.{suffix}")
    job.predict(source, f"stopped.{suffix}", chunk_rows=2, resume=True)
    if suffix == "parquet":
        tables = [parquet.read_table(job.folder / f"{name}.parquet").to_pylist() for name in ("whole", "stopped")]
    else:
        tables = []
        for name in ("whole", "stopped"):
            with open_plain(job.folder / f"{name}.{suffix}") as stream:
                tables.append(stream.readlines()[0 if suffix.startswith("jsonl") else 1 :])
    assert len(tables[0]) == whole.predicted == 6
    assert tables[0] == tables[1]


def test_more_rows_than_a_spreadsheet_holds_are_refused_before_they_are_all_predicted(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_files, "XLSX_ROWS", 4)
    with pytest.raises(InputError, match=r"out\.xlsx: XLSX holds 4 rows.*\.csv"):
        job.predict(job.file("in.csv", BAD_ROWS + "tea,6\r\nsoap,7\r\n"), "out.xlsx", chunk_rows=2)
    assert "soap" not in job.scorer.scored
    assert not (job.folder / "out.xlsx").exists()


def test_what_is_left_says_what_it_is(job: Job) -> None:
    stopped(job, products(job))
    stored = json.loads((job.folder / ".out.csv.parts" / "job.json").read_text(encoding="utf-8"))
    assert stored["stage"] == "working"
    assert stored["job"]["input"][0]["name"] == "in.csv"
