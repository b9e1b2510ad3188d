import csv
import errno
import gc
import io
import json
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from pyarrow import parquet

from shelfwise.data import writer
from shelfwise.data.writer import Column, defuse, format_of, open_writer
from shelfwise.errors import InputError

COLUMNS = [Column("name"), Column("sure", "share"), Column("best", "ranking"), Column("path", "path")]
RANKING = (("Tea, Green", 0.912345678), ('5" "Nails"', 0.05), ("=Odd", 0.01))
RANKING_TEXT = '[["Tea, Green", 0.9123], ["5\\" \\"Nails\\"", 0.05], ["=Odd", 0.01]]'
ROWS: list[list[Any]] = [
    ["Green tea, 100 g", 0.912345678, RANKING, ("Drinks", "Tea > all", "Tea, Green")],
    ['ünï "x"\nsecond line', 1.0, RANKING, ("=Odd",)],
    ["", 0.5, RANKING, ("Tea, Green",)],
]
PATHS = ["Drinks > Tea > all > Tea, Green", "'=Odd", "Tea, Green"]
FORMULAS = ["=1+1", "+A1", "-A1", "- pack of 6", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-1+2", "+", "-"]
HARMLESS = ["", "NA", "null", "None", "-5", "+3.2", "-.5", "-1e3", "1=1", "'", "a-b", "a\rb", " x ", "<r>&</r>", "\x0b"]
FORMATS = ["csv", "tsv", "jsonl", "parquet", "xlsx"]


def write(target: Path, columns: list[Column], *chunks: list[list[Any]]) -> Path:
    with target.open("wb") as stream, open_writer(stream, target, columns) as put:
        for rows in chunks:
            put(rows)
    return target


def flat_rows(path: Path) -> list[list[Any]]:
    """The cells of a spreadsheet file; an empty XLSX cell as ''."""
    if path.suffix == ".xlsx":
        sheet = openpyxl.load_workbook(path)["predictions"]
        return [["" if cell is None else cell for cell in row] for row in sheet.iter_rows(values_only=True)]
    text = io.StringIO(path.read_bytes().decode(), newline="")
    return [list(row) for row in csv.reader(text, delimiter="\t" if path.suffix == ".tsv" else ",")]


def records(path: Path) -> list[dict[str, Any]]:
    """The rows of a format that knows types."""
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    return [json.loads(line) for line in path.read_bytes().decode().splitlines()]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx"])
def test_a_spreadsheet_reads_back_as_written_over_two_chunks(tmp_path: Path, suffix: str) -> None:
    rows = flat_rows(write(tmp_path / f"out.{suffix}", COLUMNS, ROWS[:1], ROWS[1:]))
    assert rows[0] == ["name", "sure", "best", "path"]
    assert [row[0] for row in rows[1:]] == [row[0] for row in ROWS]
    assert [float(row[1]) for row in rows[1:]] == [0.9123, 1.0, 0.5]
    assert {row[2] for row in rows[1:]} == {RANKING_TEXT}
    assert [row[3] for row in rows[1:]] == PATHS


def test_json_lines_hold_native_lists_and_four_decimals(tmp_path: Path) -> None:
    found = records(write(tmp_path / "out.jsonl", COLUMNS, ROWS[:1], ROWS[1:]))
    assert [row["name"] for row in found] == [row[0] for row in ROWS]
    assert [row["sure"] for row in found] == [0.9123, 1.0, 0.5]
    assert found[0]["best"][:2] == [
        {"type": "Tea, Green", "confidence": 0.9123},
        {"type": '5" "Nails"', "confidence": 0.05},
    ]
    assert [row["path"] for row in found] == [list(row[3]) for row in ROWS]
    assert list(found[0]) == ["name", "sure", "best", "path"]


def test_parquet_holds_native_lists_and_all_digits(tmp_path: Path) -> None:
    path = write(tmp_path / "out.parquet", COLUMNS, ROWS[:1], ROWS[1:])
    found = records(path)
    assert [row["name"] for row in found] == [row[0] for row in ROWS]
    assert [row["sure"] for row in found] == [0.912345678, 1.0, 0.5]
    assert [(entry["type"], entry["confidence"]) for entry in found[2]["best"]] == list(RANKING)
    assert [row["path"] for row in found] == [list(row[3]) for row in ROWS]
    assert pd.read_parquet(path)["sure"].dtype == "float64"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_without_rows_still_has_its_columns(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"out.{suffix}", COLUMNS)
    if suffix == "jsonl":
        assert path.read_bytes() == b""
    elif suffix == "parquet":
        assert parquet.read_table(path).column_names == ["name", "sure", "best", "path"]
    else:
        assert flat_rows(path) == [["name", "sure", "best", "path"]]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_would_run_is_quoted(text: str) -> None:
    assert defuse(text) == "'" + text


@pytest.mark.parametrize("text", HARMLESS)
def test_numbers_and_ordinary_texts_stay_as_they_are(text: str) -> None:
    assert defuse(text) == text


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx"])
def test_formulas_are_escaped_in_cells_and_headings_of_spreadsheets(tmp_path: Path, suffix: str) -> None:
    names = FORMULAS + [text for text in HARMLESS if text != "\x0b"]
    path = write(tmp_path / f"out.{suffix}", [Column("=name"), Column("n")], [[name, "1"] for name in names])
    rows = flat_rows(path)
    assert rows[0][0] == "'=name"
    # XLSX writes a carriage return as Excel does; openpyxl leaves that undone.
    assert [str(row[0]).replace("_x000D_", "\r") for row in rows[1:]] == [defuse(name) for name in names]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_formulas_pass_untouched_where_no_spreadsheet_runs_them(tmp_path: Path, suffix: str) -> None:
    names = FORMULAS + HARMLESS
    path = write(tmp_path / f"out.{suffix}", [Column("=name")], [[name] for name in names])
    assert [row["=name"] for row in records(path)] == names


def test_xlsx_cells_are_texts_and_numbers_never_formulas_or_links(tmp_path: Path) -> None:
    names = ["=1+1", "http://example.org", "00123", "12345678901234567890"]
    path = write(tmp_path / "out.xlsx", [Column("name"), Column("sure", "share")], [[name, 0.25] for name in names])
    sheet = openpyxl.load_workbook(path)["predictions"]
    assert [cell.data_type for cell in sheet["A"][1:]] == ["inlineStr"] * 4 or {c.data_type for c in sheet["A"]} == {
        "s"
    }
    assert [cell.value for cell in sheet["A"][1:]] == ["'=1+1", *names[1:]]
    assert [cell.hyperlink for cell in sheet["A"]] == [None] * 5
    assert [cell.value for cell in sheet["B"][1:]] == [0.25] * 4


def test_xlsx_survives_characters_that_xml_does_not_know(tmp_path: Path) -> None:
    path = write(tmp_path / "out.xlsx", [Column("name")], [["a\uffffb"], ["<r><t>x</t></r>"], ["a\x00b"], ["_x0041_"]])
    assert [row[0] for row in flat_rows(path)[1:]] == ["a\ufffdb", "<r><t>x</t></r>", "a_x0000_b", "_x005F_x0041_"]


def test_xlsx_refuses_a_text_that_its_cells_cannot_hold(tmp_path: Path) -> None:
    target = tmp_path / "out.xlsx"
    write(target, [Column("name")], [["x" * 32_767]])
    with pytest.raises(InputError, match=r"out\.xlsx: row 3, column 'name': .* 32,768 .* Write a \.csv file"):
        write(target, [Column("name")], [["short"], ["x" * 32_768]])


def test_xlsx_refuses_more_rows_and_columns_than_excel_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "XLSX_ROWS", 4)
    target = tmp_path / "out.xlsx"
    write(target, [Column("name")], [["a"], ["b"], ["c"]])
    with pytest.raises(InputError, match=r"out\.xlsx: XLSX holds 4 rows, .* Write a \.csv file"):
        write(target, [Column("name")], [["a"], ["b"], ["c"], ["d"]])
    with pytest.raises(InputError, match=r"16,384 columns, not 16,385"):
        write(target, [Column(str(number)) for number in range(16_385)])


@pytest.mark.parametrize("name", ["out.txt", "out", "out.csv.gz", "out.xls"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}: .*\.csv, .*\.xlsx"):
        format_of(Path(name))


def test_a_suffix_may_be_written_in_capitals() -> None:
    assert format_of(Path("OUT.CSV")) == "csv"


class FullDisk(io.BytesIO):
    """A stream on a disk that is full after some bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_is_an_os_error_and_the_rest_is_silent(tmp_path: Path, suffix: str) -> None:
    rows = [[f"name {number}", 0.5, RANKING, ("a", "b")] for number in range(200)]
    stream = FullDisk(room=300)
    with pytest.raises(OSError, match="No space left") as caught:
        write_into(stream, tmp_path / f"out.{suffix}", rows)
    assert caught.value.errno == errno.ENOSPC
    del caught
    gc.collect()  # a destructor that still wrote would now be an unraisable error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", FORMATS)
def test_an_interruption_leaves_nothing_behind_and_passes_through(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_into(io.BytesIO(), tmp_path / f"out.{suffix}", ROWS, KeyboardInterrupt())
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def write_into(stream: io.BytesIO, target: Path, rows: list[list[Any]], error: BaseException | None = None) -> None:
    with stream, open_writer(stream, target, COLUMNS) as put:
        put(rows)
        if error is not None:
            raise error


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_quotation_marks_stand_where_the_standard_librarys_writer_puts_them(tmp_path: Path, suffix: str) -> None:
    cells = ["", " ", "a,b", "a\tb", 'say "x"', '"', "a\nb", "a\r\nb", "a\rb", " x ", "ünï", "x;y", "'", "0"]
    for width in (1, 2, len(cells)):
        rows = [cells[i : i + width] for i in range(len(cells) - width + 1)]
        columns = [Column(f"column {i}") for i in range(width)]
        expected = io.StringIO(newline="")
        delimiter = "\t" if suffix == "tsv" else ","
        writing = csv.writer(expected, delimiter=delimiter, lineterminator="\r\n")
        writing.writerows([[column.name for column in columns], *rows])
        found = write(tmp_path / f"{width}.{suffix}", columns, rows).read_bytes()
        assert found.decode() == expected.getvalue()


def test_shares_in_a_ranking_are_written_as_json_writes_the_rounded_number() -> None:
    shares = [0.0, 1.0, 0.5, 0.91, 0.00005, 0.00004999, 0.12345, 0.99995, 0.9999499, 1e-9, 0.1 + 0.2, 1 / 3]
    ranking = [(f'"{i}" é', share) for i, share in enumerate(shares)]
    expected = json.dumps([(label, round(share, 4)) for label, share in ranking], ensure_ascii=False)
    assert writer._ranking_text(ranking) == expected
