"""Processes beside a prediction job: the same file, and nothing lost or left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shelfwise.config import Columns, parse
from shelfwise.data import sample
from shelfwise.errors import CatalogueError, WorkError
from shelfwise.pipelines import predict_job
from shelfwise.pipelines.predict import predict
from shelfwise.pipelines.predict_plan import make_plan
from shelfwise.pipelines.predict_worker import Worker
from shelfwise.pipelines.train import train
from support.runs import train_small, write_catalogue


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "baseline"
    train(parse({"catalogue": str(sample.catalogue_path()), "model": "baseline"}, "test"), folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("feed") / "feed.csv"
    lines = ["sku,product,note"]
    for i in range(3_000):
        name = "" if i % 97 == 5 else f'"Green tea, ""no. {i % 700}"" {i} g"'
        lines.append(f"{i},{name},\ud7ff{i}" if i % 211 else f"{i},too,many,cells,{i}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("suffix", ["csv", "jsonl.gz", "parquet"])
def test_the_output_of_two_processes_is_that_of_one(run: Path, source: Path, tmp_path: Path, suffix: str) -> None:
    outputs = []
    for workers in (1, 2):
        out = tmp_path / str(workers) / f"out.{suffix}"
        out.parent.mkdir()
        summary = predict(run, source, out, device="cpu", chunk_rows=400, workers=workers)
        assert (summary.predicted, summary.rejected) == (2_955, 45)
        outputs.append((out.read_bytes(), (out.parent / "out.rejects.csv").read_bytes(), summary.scored))
    assert outputs[0] == outputs[1]


def test_a_killed_process_is_told_and_the_job_resumes(
    run: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    predict(run, source, whole, device="cpu", chunk_rows=100)
    started: list[predict_job.Worker] = []

    class Kept(predict_job.Worker):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            started.append(self)

    monkeypatch.setattr(predict_job, "Worker", Kept)

    def kill(rows: int) -> None:
        if rows >= 500:
            started[1]._process.kill()

    with pytest.raises(WorkError, match=r"ended early \(status -9\).*--workers 1"):
        predict(run, source, out, device="cpu", chunk_rows=100, workers=2, progress=kill)
    assert not out.exists()
    assert all(worker._process.returncode is not None for worker in started)
    predict(run, source, out, device="cpu", chunk_rows=100, workers=2, resume=True)
    assert out.read_bytes() == whole.read_bytes()


def test_no_process_outlives_a_job_that_is_killed(run: Path, source: Path, tmp_path: Path) -> None:
    words = ["predict", str(run), str(source), "--out", str(tmp_path / "out.csv"), "--workers", "2"]
    job = subprocess.Popen([sys.executable, "-m", "shelfwise", *words], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(children_of(job.pid)) < 2 and time.monotonic() < deadline and job.poll() is None:
        time.sleep(0.05)
    workers = children_of(job.pid)
    assert len(workers) == 2
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def test_a_process_whose_job_is_gone_ends_without_a_word(
    run: Path, source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    plan = make_plan(run, source, out, columns=Columns(), force=False, resume=False, answerer=None)
    worker = Worker(run, 3, plan)
    rows = list(plan.stream)
    assert worker.do((rows[:50], True)).tally.rows == 50
    pipe, process = worker._process.stdout, worker._process
    assert pipe is not None
    pipe.close()
    with pytest.raises((OSError, ValueError)):
        worker.do((rows, False))
    assert process.wait(30) == 1
    worker.close()
    assert capfd.readouterr().err == ""


def test_an_error_of_the_file_comes_after_what_was_read_before_it(run: Path, source: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_bytes(source.read_bytes() + b'1,"never closed,3\n')
    with pytest.raises(CatalogueError, match="never closed"):
        predict(run, broken, tmp_path / "out.csv", device="cpu", chunk_rows=400, workers=2)
    assert list(tmp_path.iterdir()) == [broken]


def test_an_interrupted_language_model_ends_at_once_and_keeps_what_is_done(tmp_path: Path) -> None:
    train_small(write_catalogue(tmp_path / "catalogue.csv"), tmp_path / "run", model="tiny-llama", method="full")
    source, out = tmp_path / "feed.csv", tmp_path / "out.csv"
    source.write_text("product\n" + "".join(f"green tea {i} of {i % 977} g\n" for i in range(60_000)), encoding="utf-8")
    words = ["predict", str(tmp_path / "run"), str(source), "--out", str(out), "--classifier", "model"]
    job = subprocess.Popen(
        [sys.executable, "-m", "shelfwise", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    first = tmp_path / ".out.csv.parts" / "000000.json"
    deadline = time.monotonic() + 120
    while not first.exists() and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert first.exists()
    job.send_signal(signal.SIGINT)  # the next part is inside the model
    said, _ = job.communicate(timeout=30)
    assert job.returncode == 1, said
    assert "rows are done and kept" in said
    assert "terminate called" not in said
    assert not out.exists()
