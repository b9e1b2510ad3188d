import errno
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from pyarrow import parquet

from shelfwise.calibration import Calibration
from shelfwise.classifier import Classifier
from shelfwise.errors import InputError, InterruptedRunError, StorageError
from shelfwise.pipelines import predict_inputs, predict_parts
from shelfwise.pipelines.predict_answers import Alone, Memory
from support.predictions import ADDED, BAD_ROWS, CALIBRATION, CATALOGUE, INPUTS, LABELS, RECORDS, FakeScorer, Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_the_output_has_the_inputs_columns_in_order_and_then_ours(job: Job) -> None:
    summary = job.predict(job.file("in.csv", CATALOGUE))
    rows = job.rows()
    assert list(rows[0]) == ["sku", "product", "price", *ADDED]
    assert [row["sku"] for row in rows] == ["a1", "a2", "a3", "a4", "a5", "a6"]
    assert [row["price"] for row in rows] == ["3", "4", "5", "6", "-7", "8"]
    assert rows[3]["product"] == "  Hair   wash "  # as the file has it; only what the model reads is normalised
    assert [row["predicted_type"] for row in rows] == [
        "Tea, Green",
        "Shampoo",
        "Tea, Green",
        "Shampoo",
        "Shampoo",
        "'=Odd",
    ]
    assert [row["decision"] for row in rows] == ["accept", "accept", "review", "accept", "accept", "accept"]
    assert [row["level"] for row in rows] == ["type", "type", "category", "type", "type", "type"]
    assert [row["sure_path"] for row in rows[1:3]] == ["Shampoo", "Drinks"]
    assert rows[0]["confidence"] == "0.9"
    assert json.loads(rows[2]["top_k"]) == [["Tea, Green", 0.4], ["=Odd", 0.35], ["Shampoo", 0.25]]
    assert [row["path"] for row in rows[:2]] == ["Drinks > Hot > cold > Tea, Green", "Shampoo"]
    assert {row["model"] for row in rows} == {"fake"}
    assert (summary.rows, summary.predicted, summary.rejected) == (6, 6, 0)
    assert (summary.accepted, summary.accepted_share) == (5, 5 / 6)
    assert summary.rejects is None
    assert not (job.folder / "out.rejects.csv").exists()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_every_output_format_holds_the_same_predictions(job: Job, suffix: str) -> None:
    job.predict(job.file("in.csv", CATALOGUE), f"out.{suffix}")
    path = job.folder / f"out.{suffix}"
    if suffix == "xlsx":
        header, *cells = openpyxl.load_workbook(path)["predictions"].iter_rows(values_only=True)
        rows: list[dict[Any, Any]] = [dict(zip(header, row, strict=True)) for row in cells]
    elif suffix == "parquet":
        rows = parquet.read_table(path).to_pylist()
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in path.read_bytes().decode().splitlines()]
    else:
        rows = list(job.rows(path.name))
    native = suffix in ("jsonl", "parquet")
    assert list(rows[0]) == ["sku", "product", "price", *ADDED]
    assert [row["sku"] for row in rows] == ["a1", "a2", "a3", "a4", "a5", "a6"]
    assert rows[4]["product"] == ("=1+1" if native else "'=1+1")
    assert rows[4]["price"] == "-7"
    assert rows[5]["predicted_type"] == ("=Odd" if native else "'=Odd")
    assert [float(row["confidence"]) for row in rows] == pytest.approx([0.9, 0.9, 0.4, 0.9, 0.9, 0.9], abs=1e-6)
    ranking = rows[2]["top_k"] if native else json.loads(rows[2]["top_k"])
    pairs = [(entry["type"], entry["confidence"]) for entry in ranking] if native else [tuple(e) for e in ranking]
    assert [label for label, _ in pairs] == ["Tea, Green", "=Odd", "Shampoo"]
    shares = [share for _, share in pairs]
    assert shares == pytest.approx([0.4, 0.35, 0.25], abs=1e-6)
    assert shares == sorted(shares, reverse=True)
    assert [row["level"] for row in rows] == ["type", "type", "category", "type", "type", "type"]
    assert rows[2]["sure_path"] == (["Drinks"] if native else "Drinks")
    path_cell = rows[0]["path"]
    assert path_cell == (["Drinks", "Hot > cold", "Tea, Green"] if native else "Drinks > Hot > cold > Tea, Green")


@pytest.mark.parametrize("name", INPUTS)
def test_every_input_format_is_read(job: Job, name: str) -> None:
    job.predict(job.file(name, INPUTS[name]()), "out.jsonl")
    rows = [json.loads(line) for line in (job.folder / "out.jsonl").read_bytes().decode().splitlines()]
    assert [{"product": row["product"], "n": row["n"]} for row in rows] == RECORDS
    assert [row["predicted_type"] for row in rows] == ["Tea, Green", "Shampoo"]


def test_identical_texts_are_scored_once_over_all_chunks(job: Job) -> None:
    names = ["Tea a", "Soap b", " Tea  a", "Soap b", "Tea a", "Tea c"]
    summary = job.predict(job.file("in.csv", "product\n" + "\n".join(names) + "\n"), chunk_rows=2)
    assert job.scorer.scored == ["Tea a", "Soap b", "Tea c"]
    assert summary.scored == 3
    assert [row["predicted_type"] for row in job.rows()] == [
        "Tea, Green",
        "Shampoo",
        "Tea, Green",
        "Shampoo",
        "Tea, Green",
        "Tea, Green",
    ]


def test_what_is_remembered_is_bounded_and_the_longest_unseen_is_forgotten_first() -> None:
    scorer = FakeScorer()
    answerer = Alone(Classifier("fake", LABELS, scorer, Calibration(), ("product",)))
    memory = Memory(answerer, top_k=1, parts=2)
    for part in (["a", "b"], ["c", "b"], ["d"], ["e"], ["b", "a"]):
        memory.tell(memory.ask(part))
    assert scorer.scored == ["a", "b", "c", "d", "e", "b", "a"]  # b's last part was three parts before
    assert len(memory) == 4
    memory.tell(memory.ask(["e"]))
    assert scorer.scored[-1] == "a"


def test_a_memory_that_is_written_down_and_recalled_answers_alike_and_forgets_alike() -> None:
    scorers = FakeScorer(), FakeScorer()
    memories = [
        Memory(Alone(Classifier("fake", LABELS, scorer, CALIBRATION, ("product",))), top_k=3, parts=2)
        for scorer in scorers
    ]
    written = [memories[0].tell(memories[0].ask(part))[2] for part in (["tea unsure", "a"], ["b"])]
    for number, part in enumerate(written):
        memories[1].recall(number, part, "test")
    for later in (["a", "tea unsure"], ["odd c", "b"], ["a"]):
        assert memories[1].tell(memories[1].ask(later)) == memories[0].tell(memories[0].ask(later))
    assert scorers[1].scored == scorers[0].scored[3:]


class Unhurried(FakeScorer):
    """A GPU: it is begun with, and answers later; here not before it was begun with the part after."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.begun = [threading.Event() for _ in range(parts)]
        self.begun[-1].set()  # nothing comes after the last one
        self.overtaken: list[bool] = []

    def start(self, texts: Sequence[str]) -> Callable[[], Any]:
        number = len(self.batches)
        if number:
            self.begun[number - 1].set()
        scored = self.log_probs(texts)

        def answers() -> Any:
            self.overtaken.append(self.begun[number].wait(10))
            return scored

        return answers

    def warm(self) -> None:
        raise AssertionError("a job needs no warm model")


def test_the_next_part_is_begun_with_before_the_answers_to_the_last_are_there(tmp_path: Path) -> None:
    job = Job(tmp_path, Unhurried(parts=5))
    names = [f"Tea {i}" for i in range(10)]
    job.predict(job.file("in.csv", "product\n" + "\n".join(names) + "\n"), chunk_rows=2)
    assert job.scorer.overtaken == [True] * 5
    assert [row["product"] for row in job.rows()] == names


@pytest.mark.parametrize("name", ["NA", "null", "None", "nan", "N/A", "#N/A", "TRUE", "0", "1e5"])
def test_names_that_look_like_missing_values_are_classified(job: Job, name: str) -> None:
    job.predict(job.file("in.csv", f"product,n\n{name},1\n"))
    assert job.scorer.scored == [name]
    assert job.rows()[0]["product"] == name


def test_rows_that_cannot_be_classified_stand_in_the_rejects_file(job: Job) -> None:
    summary = job.predict(job.file("in.csv", BAD_ROWS), chunk_rows=2)
    assert [row["product"] for row in job.rows()] == ["Tea a", "Soap c"]
    rejects = job.rows("out.rejects.csv")
    assert list(rejects[0]) == ["source", "reason", "product", "n"]
    assert [row["source"] for row in rejects] == ["in.csv:3", "in.csv:4", "in.csv:5"]
    assert all(row["reason"] for row in rejects)
    assert [rejects[0]["n"], rejects[2]["n"]] == ["2", "4"]
    assert (summary.rows, summary.predicted, summary.rejected) == (5, 2, 3)
    assert summary.rejects == job.folder / "out.rejects.csv"
    assert [reject.source for reject in summary.first_rejects] == ["in.csv:3", "in.csv:4", "in.csv:5"]


def test_the_summary_shows_the_first_five_rejects_and_is_json(job: Job) -> None:
    summary = job.predict(job.file("in.csv", "product,n\nTea,0\n" + ",1\n" * 7), chunk_rows=2)
    document = json.loads(json.dumps(summary.to_json()))
    assert document["rejected"] == 7
    assert [reject["source"] for reject in document["first_rejects"]] == [f"in.csv:{line}" for line in range(3, 8)]
    assert document["out"] == str(job.folder / "out.csv")


def test_a_rejects_file_of_an_earlier_job_does_not_outlive_it(job: Job) -> None:
    job.predict(job.file("bad.csv", BAD_ROWS))
    assert (job.folder / "out.rejects.csv").exists()
    job.predict(job.file("good.csv", "product\nTea\n"), force=True)
    assert not (job.folder / "out.rejects.csv").exists()


def test_top_k_is_cut_to_the_number_of_labels_and_at_least_one(job: Job) -> None:
    source = job.file("in.csv", "product\nTea a\n")
    job.predict(source, "one.csv", top_k=1)
    job.predict(source, "ten.csv", top_k=10)
    assert [len(json.loads(job.rows(name)[0]["top_k"])) for name in ("one.csv", "ten.csv")] == [1, 3]
    with pytest.raises(InputError, match="top_k is at least 1, not 0"):
        job.predict(source, "none.csv", top_k=0)


def test_a_failure_before_the_first_part_is_done_leaves_nothing(job: Job) -> None:
    source = job.file("in.csv", 'product\nTea a\n""\nTea b\nTea c\n')
    job.scorer.fail_on = "Tea a"
    for suffix in ("csv", "jsonl", "parquet", "xlsx"):
        with pytest.raises(RuntimeError, match="device is gone"):
            job.predict(source, f"out.{suffix}", chunk_rows=2)
    assert [path.name for path in job.folder.iterdir()] == ["in.csv"]
    assert job.scorer.batches


def test_a_failure_in_a_later_part_leaves_no_file_under_a_final_name(job: Job) -> None:
    source = job.file("in.csv", 'product\nTea a\n""\nTea b\nTea c\n')
    job.scorer.fail_on = "Tea c"
    for suffix in ("csv", "jsonl", "parquet", "xlsx"):
        with pytest.raises(RuntimeError, match="device is gone"):
            job.predict(source, f"out.{suffix}", chunk_rows=2)
        assert sorted(path.name for path in job.folder.iterdir()) == [f".out.{suffix}.parts", "in.csv"]
        shutil.rmtree(job.folder / f".out.{suffix}.parts")


def test_an_interruption_leaves_what_stood_there_before(job: Job) -> None:
    source = job.file("in.csv", BAD_ROWS)
    old = [job.file("out.csv", "old"), job.file("out.rejects.csv", "old")]

    def interrupt(done: int) -> None:
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match=r"out\.csv: interrupted\. 4 rows are done and kept.*--resume"):
        job.predict(source, chunk_rows=2, force=True, progress=interrupt)
    assert [path.read_text() for path in old] == ["old", "old"]
    assert sorted(path.name for path in job.folder.iterdir())[1:] == ["in.csv", "out.csv", "out.rejects.csv"]


def test_an_interruption_right_behind_a_part_counts_the_part(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on the disk is done, though the job had no time to count it; it used to be thrown away."""
    real = predict_parts.write_json

    def write(path: Path, document: object) -> None:
        real(path, document)
        if path.name == "000000.json":
            raise KeyboardInterrupt

    monkeypatch.setattr(predict_parts, "write_json", write)
    source = job.file("in.csv", BAD_ROWS)
    with pytest.raises(InterruptedRunError, match=r"interrupted\. 2 rows are done and kept"):
        job.predict(source, chunk_rows=2)
    monkeypatch.undo()
    assert job.predict(source, chunk_rows=2, resume=True).resumed == 2


@pytest.mark.parametrize(("full", "kind"), [("out.csv", "out"), ("out.rejects.csv", "rejects")])
def test_a_full_disk_is_a_storage_error_that_names_the_file_and_leaves_none(
    job: Job, monkeypatch: pytest.MonkeyPatch, full: str, kind: str
) -> None:
    real = predict_parts._write

    def write(path: Path, data: bytes) -> None:
        if path.suffix == f".{kind}":
            path.write_bytes(data[:9])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(predict_parts, "_write", write)
    with pytest.raises(StorageError, match=rf"{full}: the disk is full") as caught:
        job.predict(job.file("in.csv", BAD_ROWS), chunk_rows=4)
    assert caught.value.exit_status == 1
    assert [path.name for path in job.folder.iterdir()] == ["in.csv"]


def test_rows_in_flight_stay_bounded_on_a_large_file(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts rows read and not yet written, and texts a call of the model; memory itself is not measured."""
    total, read, worst = 40_000, 0, 0
    with (job.folder / "in.csv").open("w", encoding="utf-8") as stream:
        stream.write("product,n\n")
        stream.writelines(f"Tea {number % 10_000},{number}\n" for number in range(total))
    open_rows = predict_inputs.open_rows

    class Counted:
        def __init__(self, source: Path) -> None:
            self.path = source
            self.stream = open_rows(source)
            self.columns = self.stream.columns

        def __iter__(self) -> Iterator[Any]:
            nonlocal read, worst
            for row in self.stream:
                read += 1
                worst = max(worst, read - (reported[-1] if reported else 0))
                yield row

    reported: list[int] = []
    monkeypatch.setattr(predict_inputs, "open_rows", Counted)
    summary = job.predict(job.folder / "in.csv", chunk_rows=1000, progress=reported.append)
    assert (summary.predicted, summary.scored) == (total, 10_000)
    assert worst <= 4000  # one read, one asked for, one told, one written
    assert max(map(len, job.scorer.batches)) == 1000
    assert reported[:3] == [256, 768, 1768]  # the first chunks are small, so that a rate is told soon
    assert reported[-1] == total


@pytest.mark.parametrize(("exact", "rows"), [(False, 2048), (True, 8192)])
def test_the_size_of_parts_suits_who_answers(job: Job, exact: bool, rows: int) -> None:
    job.scorer.exact = exact  # type: ignore[attr-defined]
    reported = [0]
    job.predict(job.file("in.csv", "product\n" + "Tea\n" * 25_000), progress=reported.append)
    assert reported[-1] == 25_000
    assert max(after - before for before, after in pairwise(reported)) == rows


def test_seconds_and_rate_come_from_the_clock(job: Job) -> None:
    ticks = iter([100.0, 102.0])
    summary = job.predict(job.file("in.csv", CATALOGUE), clock=lambda: next(ticks))
    assert (summary.seconds, summary.rows_per_s) == (2.0, 3.0)
