"""Prediction on a real Ray cluster of this machine: the same rows and answers as without, whatever dies on the way."""

from __future__ import annotations

import csv
import gzip
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from shelfwise import cli
from shelfwise.errors import InputError, InterruptedRunError
from shelfwise.pipelines.predict import predict
from support.runs import train_small, write_catalogue

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.slow

from shelfwise.pipelines.ray_predict import Cluster, predict_on_ray  # noqa: E402  after the check that Ray is there

WORKERS = Cluster(workers=2, cpus_each=1)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two CPUs for the actors and one for reading; so many that the machine has them or not."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and products: two files, names that repeat, and rows without a name."""
    folder = tmp_path_factory.mktemp("ray")
    catalogue = write_catalogue(folder / "catalogue.csv")
    train_small(catalogue, folder / "run", model="baseline")
    with catalogue.open(newline="", encoding="utf-8") as stream:
        names = [row["product"] for row in csv.DictReader(stream)]
    (folder / "feeds").mkdir()
    for number in range(2):
        with (folder / "feeds" / f"{number}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["product", "n"])
            for i in range(2_000):
                writer.writerow(["" if i % 97 == 5 else f"{names[i % 120]} {i % 300}", number * 2_000 + i])
    return folder / "run", folder / "feeds"


def rows_of(folder: Path, ending: str = ".csv.gz") -> list[dict[str, str]]:
    """The rows of all files in the order of their names."""
    rows: list[dict[str, str]] = []
    rejects = ending == ".rejects.csv"
    for path in sorted(folder.glob(f"part-*{ending}")):
        if path.name.endswith(".rejects.csv") != rejects:
            continue
        data = path.read_bytes()
        text = (gzip.decompress(data) if ending.endswith(".gz") else data).decode()
        rows += csv.DictReader(io.StringIO(text, newline=""))
    return rows


@pytest.fixture(scope="module")
def expected(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """What the same job gives without Ray."""
    out = tmp_path_factory.mktemp("local") / "out.csv"
    predict(made[0], made[1], out)
    return {
        name: list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))
        for name, path in (("rows", out), ("rejects", out.with_name("out.rejects.csv")))
    }


def require_same(out: Path, expected: dict[str, list[dict[str, str]]]) -> None:
    assert rows_of(out) == expected["rows"]
    assert rows_of(out, ".rejects.csv") == expected["rejects"]
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert all(path.name.startswith("part-") for path in out.iterdir())


def test_the_rows_and_the_answers_are_those_of_a_job_without_ray(
    made: tuple[Path, Path], expected: Any, tmp_path: Path
) -> None:
    seen: list[int] = []
    out = tmp_path / "out.csv.gz"
    summary = predict_on_ray(*made, out, chunk_rows=300, cluster=WORKERS, progress=seen.append)
    require_same(out, expected)
    assert len(list(out.glob("*.csv.gz"))) == 14
    assert (summary.rows, summary.predicted, summary.rejected) == (4_000, len(expected["rows"]), 42)
    assert seen == sorted(seen)
    assert seen[-1] == 4_000


def actors() -> list[Any]:
    """Processes of this cluster that classify, whether at work or waiting."""
    mine = psutil.Process().children(recursive=True)
    return [p for p in mine if p.is_running() and any("MapWorker" in word for word in p.cmdline())]


def test_a_killed_worker_loses_nothing(made: tuple[Path, Path], expected: Any, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one(done: int) -> None:
        if not killed:
            victim = actors()[0]
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    summary = predict_on_ray(*made, tmp_path / "out.csv.gz", chunk_rows=40, cluster=WORKERS, progress=kill_one)
    assert killed
    assert summary.rows == 4_000
    require_same(tmp_path / "out.csv.gz", expected)


def test_a_job_that_was_stopped_is_resumed_where_it_was(made: tuple[Path, Path], expected: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.csv.gz"

    def stop(done: int) -> None:
        if done > 1_000:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="rows are done and kept"):
        predict_on_ray(*made, out, chunk_rows=300, cluster=WORKERS, progress=stop)
    assert not out.exists()
    with pytest.raises(InputError, match=r"unfinished job.*--resume"):
        predict_on_ray(*made, out, chunk_rows=300, cluster=WORKERS)
    with pytest.raises(InputError, match="another call or input"):
        predict_on_ray(*made, out, chunk_rows=200, cluster=WORKERS, resume=True)
    summary = predict_on_ray(*made, out, chunk_rows=300, cluster=WORKERS, resume=True)
    assert summary.resumed > 1_000
    assert summary.rows == 4_000
    require_same(out, expected)


@pytest.mark.parametrize("which", ["model", "cascade"])
def test_a_language_model_answers_on_the_cluster_as_it_does_here(
    made: tuple[Path, Path], tmp_path: Path, which: Any
) -> None:
    run, feed = tmp_path / "run", made[1] / "0.csv"
    train_small(made[0].parent / "catalogue.csv", run, model="tiny-llama", method="full")
    predict(run, feed, tmp_path / "here.csv", which=which)
    killed: list[int] = []

    def kill_one(done: int) -> None:
        if not killed:
            killed.append(actors()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    there = tmp_path / "there.csv"
    summary = predict_on_ray(run, feed, there, which=which, chunk_rows=250, cluster=WORKERS, progress=kill_one)
    assert killed
    found, expected = rows_of(there, ".csv"), list(csv.DictReader((tmp_path / "here.csv").open(newline="")))
    assert (summary.rows, len(found)) == (2_000, 1_979)
    close = {"confidence", "top_k"}  # their last bits depend on what is asked together
    assert [{k: v for k, v in row.items() if k not in close} for row in found] == [
        {k: v for k, v in row.items() if k not in close} for row in expected
    ]
    for row, right in zip(found, expected, strict=True):
        assert float(row["confidence"]) == pytest.approx(float(right["confidence"]), abs=1.01e-4)


def test_a_file_that_turns_out_wrong_is_the_same_error_as_without_ray(made: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"product\n" + b"tea\n" * 50 + b"caf\xe9\n")
    with pytest.raises(InputError, match=r"bad\.csv:52: .*not UTF-8"):
        predict_on_ray(made[0], bad, tmp_path / "out.parquet", chunk_rows=10, cluster=WORKERS)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_the_command_writes_a_folder(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.parquet"
    call = ["predict", str(made[0]), str(made[1] / "0.csv"), "--out", str(out), "--engine", "ray", "--workers", "1"]
    assert cli.run(call) == 0
    assert "2,000 rows by baseline" in capsys.readouterr().out
    assert sum(parquet.read_metadata(path).num_rows for path in out.glob("*.parquet")) == 1_979
    assert cli.run(call) == 2
    assert "there already is such a folder" in capsys.readouterr().err
    assert cli.run([*call[:3], "--out", str(tmp_path / "out.xlsx"), *call[5:]]) == 2
    assert "the output is a folder of many files" in capsys.readouterr().err
