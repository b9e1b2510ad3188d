import csv
import errno
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pytest
from pyarrow import parquet

from shelfwise.calibration import Calibration
from shelfwise.classifier import Classifier
from shelfwise.config import Columns
from shelfwise.errors import InputError, StorageError
from shelfwise.labels import Labels, Taxonomy
from shelfwise.pipelines import predict as pipeline
from shelfwise.pipelines import predict_plan
from shelfwise.pipelines.predict import PredictionSummary, expected_rows, predict
from shelfwise.pipelines.predict_plan import free_names

LABELS = Labels(("=Odd", "Shampoo", "Tea, Green"), Taxonomy({"Tea, Green": (("Drinks", "Hot > cold", 3),)}))
ADDED = ["predicted_type", "confidence", "decision", "top_k", "path", "model"]


@dataclass
class FakeScorer:
    """Scores by the first word: 'tea ...' is tea, 'odd ...' is odd, all else shampoo; 'unsure' in it: barely."""

    batches: list[list[str]] = field(default_factory=list)
    fail_on: str | None = None

    def log_probs(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.batches.append(list(texts))
        if self.fail_on in texts:
            raise RuntimeError("the device is gone")
        rows = np.empty((len(texts), len(LABELS)), np.float32)
        for row, text in zip(rows, texts, strict=True):
            best = {"tea": 2, "odd": 0}.get(text.split()[0].casefold(), 1)
            rest = [index for index in range(3) if index != best]
            row[best], row[rest] = (0.4, [0.35, 0.25]) if "unsure" in text else (0.9, [0.07, 0.03])
        return np.log(rows)

    @property
    def scored(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


@dataclass
class Job:
    """A prediction job in its own folder with a fake classifier."""

    folder: Path
    scorer: FakeScorer = field(default_factory=FakeScorer)

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def predict(self, source: Path, out: str | Path = "out.csv", **options: Any) -> PredictionSummary:
        roles = options.pop("text_columns", ("product",))
        classifier = Classifier("fake", LABELS, self.scorer, Calibration(threshold=0.8), roles)
        return predict(Path("no-run"), source, self.folder / out, classifier=classifier, **options)

    def rows(self, name: str = "out.csv") -> list[dict[str, str]]:
        text = io.StringIO((self.folder / name).read_bytes().decode(), newline="")
        return list(csv.DictReader(text, delimiter="\t" if name.endswith(".tsv") else ","))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


CATALOGUE = (
    "sku,product,price\r\n"
    'a1,"Tea loose, 1 kg",3\r\n'
    "a2,Hair wash,4\r\n"
    "a3,tea unsure,5\r\n"
    "a4,  Hair   wash ,6\r\n"
    "a5,=1+1,-7\r\n"
    "a6,odd one,8\r\n"
)


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
    path_cell = rows[0]["path"]
    assert path_cell == (["Drinks", "Hot > cold", "Tea, Green"] if native else "Drinks > Hot > cold > Tea, Green")


RECORDS = [{"product": "Tea a", "n": "1"}, {"product": "Soap b", "n": "2"}]


def _as_parquet() -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table({"product": ["Tea a", "Soap b"], "n": [1, 2]}), sink)
    return sink.getvalue()


def _as_xlsx() -> bytes:
    book = openpyxl.Workbook()
    for row in (["product", "n"], ["Tea a", "1"], ["Soap b", "2"]):
        book.active.append(row)  # type: ignore[union-attr]
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


INPUTS: dict[str, Callable[[], bytes]] = {
    "in.csv": lambda: b"\xef\xbb\xbfproduct,n\nTea a,1\nSoap b,2\n",
    "in.tsv": lambda: b"product\tn\nTea a\t1\nSoap b\t2\n",
    "in.jsonl": lambda: "\n".join(map(json.dumps, RECORDS)).encode(),
    "in.csv.gz": lambda: gzip.compress(b"product,n\r\nTea a,1\r\nSoap b,2\r\n"),
    "in.jsonl.gz": lambda: gzip.compress("\n".join(map(json.dumps, RECORDS)).encode()),
    "in.parquet": _as_parquet,
    "in.xlsx": _as_xlsx,
}


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
    answers = pipeline._Answers(Classifier("fake", LABELS, scorer, Calibration(), ("product",)), top_k=1, capacity=2)
    assert len(answers.of(["a", "b", "c", "a"])) == 4
    assert answers._known.keys() == {"b", "c"}
    answers.of(["b"])
    answers.of(["d"])
    assert answers._known.keys() == {"b", "d"}
    assert scorer.scored == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["NA", "null", "None", "nan", "N/A", "#N/A", "TRUE", "0", "1e5"])
def test_names_that_look_like_missing_values_are_classified(job: Job, name: str) -> None:
    job.predict(job.file("in.csv", f"product,n\n{name},1\n"))
    assert job.scorer.scored == [name]
    assert job.rows()[0]["product"] == name


BAD_ROWS = "product,n\r\nTea a,1\r\n,2\r\nSoap b,3,too,many\r\n \u200b,4\r\nSoap c,5\r\n"


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


def test_top_k_is_cut_to_the_number_of_labels_and_at_least_one(job: Job) -> None:
    source = job.file("in.csv", "product\nTea a\n")
    job.predict(source, "one.csv", top_k=1)
    job.predict(source, "ten.csv", top_k=10)
    assert [len(json.loads(job.rows(name)[0]["top_k"])) for name in ("one.csv", "ten.csv")] == [1, 3]
    with pytest.raises(InputError, match="top_k is at least 1, not 0"):
        job.predict(source, "none.csv", top_k=0)


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


def test_a_failure_on_the_second_chunk_leaves_no_file(job: Job) -> None:
    source = job.file("in.csv", 'product\nTea a\n""\nTea b\nTea c\n')
    job.scorer.fail_on = "Tea c"
    for suffix in ("csv", "jsonl", "parquet", "xlsx"):
        with pytest.raises(RuntimeError, match="device is gone"):
            job.predict(source, f"out.{suffix}", chunk_rows=2)
    assert [path.name for path in job.folder.iterdir()] == ["in.csv"]
    assert job.scorer.batches


def test_an_interruption_leaves_what_stood_there_before(job: Job) -> None:
    source = job.file("in.csv", BAD_ROWS)
    old = [job.file("out.csv", "old"), job.file("out.rejects.csv", "old")]

    def interrupt(done: int) -> None:
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.predict(source, chunk_rows=2, force=True, progress=interrupt)
    assert [path.read_text() for path in old] == ["old", "old"]
    assert len(list(job.folder.iterdir())) == 3


@pytest.mark.parametrize("full", ["out.csv", "out.rejects.csv"])
def test_a_full_disk_is_a_storage_error_that_names_the_file_and_leaves_none(
    job: Job, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    real = pipeline.open_writer

    def open_writer(stream: Any, target: Path, columns: Any) -> Any:
        if target.name == full:

            def refuse(data: bytes) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

            stream.write(b"half a li")
            monkeypatch.setattr(pipeline, "open_writer", real)
            stream = type("Full", (), {"write": staticmethod(refuse)})()
        return real(stream, target, columns)

    monkeypatch.setattr(pipeline, "open_writer", open_writer)
    with pytest.raises(StorageError, match=rf"{full}: the disk is full") as caught:
        job.predict(job.file("in.csv", BAD_ROWS), chunk_rows=2)
    assert caught.value.exit_status == 1
    assert [path.name for path in job.folder.iterdir()] == ["in.csv"]


def test_rows_in_flight_stay_bounded_on_a_large_file(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts rows read and not yet written, and texts a call of the model; memory itself is not measured."""
    total, in_flight, worst = 40_000, 0, 0
    with (job.folder / "in.csv").open("w", encoding="utf-8") as stream:
        stream.write("product,n\n")
        stream.writelines(f"Tea {number % 10_000},{number}\n" for number in range(total))
    open_rows = predict_plan.open_rows

    class Counted:
        def __init__(self, source: Path) -> None:
            self.stream = open_rows(source)
            self.columns = self.stream.columns

        def __iter__(self) -> Iterator[Any]:
            nonlocal in_flight, worst
            for row in self.stream:
                in_flight += 1
                worst = max(worst, in_flight)
                yield row

    def written(done: int) -> None:
        nonlocal in_flight
        in_flight = 0
        reported.append(done)

    reported: list[int] = []
    monkeypatch.setattr(predict_plan, "open_rows", Counted)
    summary = job.predict(job.folder / "in.csv", chunk_rows=1000, progress=written)
    assert (summary.predicted, summary.scored) == (total, 10_000)
    assert worst == 1000
    assert max(map(len, job.scorer.batches)) == 1000
    assert reported[:3] == [256, 768, 1768]  # the first chunks are small, so that a rate is told soon
    assert reported[-1] == total


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


def test_seconds_and_rate_come_from_the_clock(job: Job) -> None:
    ticks = iter([100.0, 102.0])
    summary = job.predict(job.file("in.csv", CATALOGUE), clock=lambda: next(ticks))
    assert (summary.seconds, summary.rows_per_s) == (2.0, 3.0)
