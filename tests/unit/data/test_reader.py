import csv
import datetime
import gzip
import json
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from shelfwise.data.reader import RowStream, open_rows
from shelfwise.errors import CatalogueError
from shelfwise.records import RawRow, Reject

ROWS = [("NA", "220"), ("null", "3.50"), ("None", ""), ("Tea, green ü", "1"), ('5" pan', "2"), ("two\nlines", "3")]


def text_file(path: Path, content: str | bytes) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def values(stream: RowStream) -> list[tuple[str, ...]]:
    rows = list(stream)
    assert all(isinstance(row, RawRow) for row in rows), rows
    return [tuple(row.values.values()) for row in rows]


def write_all_formats(folder: Path) -> list[Path]:
    paths = [folder / f"c.{suffix}" for suffix in ("csv", "tsv", "csv.gz", "jsonl", "ndjson", "jsonl.gz")]
    for path in paths:
        if ".jsonl" in path.name or ".ndjson" in path.name:
            lines = (json.dumps({"name": name, "price": price or None}) for name, price in ROWS)
            text_file(path, "\n".join(lines))
        else:
            text_file(path, "")
            frame = pd.DataFrame(ROWS, columns=["name", "price"])
            frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    table = pa.table({"name": [row[0] for row in ROWS], "price": [row[1] or None for row in ROWS]})
    parquet.write_table(table, folder / "c.parquet")
    book = openpyxl.Workbook()
    for row in [("name", "price"), *ROWS]:
        book.active.append(row)
    book.save(folder / "c.xlsx")
    return [*paths, folder / "c.parquet", folder / "c.xlsx"]


def test_every_format_gives_the_same_rows_and_keeps_na_null_and_none_as_text(tmp_path: Path) -> None:
    paths = write_all_formats(tmp_path)
    assert len(paths) == 8
    for path in paths:
        stream = open_rows(path)
        assert stream.columns == ("name", "price"), path
        assert values(stream) == ROWS, path


def test_a_stream_can_be_read_twice_and_counts_ids_from_zero(tmp_path: Path) -> None:
    for path in write_all_formats(tmp_path):
        stream = open_rows(path)
        assert [row.id for row in stream] == list(range(len(ROWS))), path
        assert list(stream) == list(stream), path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_csv_row_knows_the_line_it_begins_on_across_quoted_line_ends_and_blank_lines(
    tmp_path: Path, end: str
) -> None:
    lines = ["name,type", "a,x", '"b', '1",x', "", "   ", "c,x"]
    path = text_file(tmp_path / "c.csv", end.join(lines))
    assert [(row.id, row.source) for row in open_rows(path)] == [(0, "c.csv:2"), (1, "c.csv:3"), (2, "c.csv:7")]


def test_a_json_lines_row_knows_its_line(tmp_path: Path) -> None:
    path = text_file(tmp_path / "c.jsonl", '{"name": "a"}\n\n{"name": "b"}\n')
    assert [row.source for row in open_rows(path)] == ["c.jsonl:1", "c.jsonl:3"]


def test_a_parquet_row_counts_the_header_as_line_one(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"name": ["a", "b"]}), tmp_path / "c.parquet")
    assert [row.source for row in open_rows(tmp_path / "c.parquet")] == ["c.parquet:2", "c.parquet:3"]


def test_an_xlsx_row_has_the_number_that_excel_shows(tmp_path: Path) -> None:
    sheet = (book := openpyxl.Workbook()).active
    for cell, value in {"B3": "name", "C3": "type", "B4": "a", "C4": "x", "B7": "b", "C7": "y"}.items():
        sheet[cell] = value
    book.save(tmp_path / "c.xlsx")
    stream = open_rows(tmp_path / "c.xlsx")
    assert stream.columns == ("name", "type")
    assert [row.source for row in stream] == ["c.xlsx:4", "c.xlsx:7"]


def test_the_first_visible_worksheet_is_read(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["hidden"])
    book.active.sheet_state = "hidden"
    for row in (["name"], ["a"]):
        book.create_sheet("shown").append(row) if len(book.sheetnames) == 1 else book["shown"].append(row)
    book.save(tmp_path / "c.xlsx")
    assert values(open_rows(tmp_path / "c.xlsx")) == [("a",)]


def test_numbers_and_dates_become_text_without_changing(tmp_path: Path) -> None:
    day, moment = datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, 3, 4, 5)
    book = openpyxl.Workbook()
    for row in (["a", "b", "c", "d", "e"], [220, 3.3, True, day, moment]):
        book.active.append(row)
    book.save(tmp_path / "c.xlsx")
    assert values(open_rows(tmp_path / "c.xlsx")) == [("220", "3.3", "true", "2024-01-02", "2024-01-02T03:04:05")]

    columns = {"a": [220], "b": [3.3], "c": [True], "d": [day], "e": [moment], "f": [None], "g": [220.0], "h": [2**60]}
    table = pa.table({**columns, "i": pa.array(["x"]).dictionary_encode(), "j": pa.array([0.1], pa.float32())})
    parquet.write_table(table, tmp_path / "c.parquet")
    expected = ("220", "3.3", "true", "2024-01-02", "2024-01-02T03:04:05", "", "220", str(2**60), "x", "0.1")
    (row,) = values(open_rows(tmp_path / "c.parquet"))
    assert (*row[:4], row[4][:19], *row[5:]) == expected

    line = '{"a": 220, "b": 220.0, "c": 1e5, "d": 12345678901234567890123, "e": true, "f": null}'
    path = text_file(tmp_path / "c.jsonl", line)
    assert values(open_rows(path)) == [("220", "220.0", "1e5", "12345678901234567890123", "true", "")]
    path = text_file(tmp_path / "c.jsonl", f'{{"a": {"9" * 5_000}}}')  # Python converts 4,300 digits at most
    assert values(open_rows(path)) == [("9" * 5_000,)]


def test_a_trailing_empty_column_a_byte_order_mark_and_windows_line_ends_are_no_errors(tmp_path: Path) -> None:
    path = text_file(tmp_path / "c.csv", b"\xef\xbb\xbfname,type,\r\na,x,\r\nb,y\r\n")
    stream = open_rows(path)
    assert stream.columns == ("name", "type")
    assert values(stream) == [("a", "x"), ("b", "y")]


def test_a_nameless_index_column_in_front_stays(tmp_path: Path) -> None:
    pd.DataFrame({"name": ["a"]}).to_csv(tmp_path / "c.csv")
    stream = open_rows(tmp_path / "c.csv")
    assert (stream.columns, values(stream)) == (("", "name"), [("0", "a")])


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_csv_file_with_another_delimiter_in_its_header_is_cut_at_that(tmp_path: Path, delimiter: str) -> None:
    path = text_file(tmp_path / "c.csv", f"name{delimiter}type\nTea, green{delimiter}x\n")
    assert values(open_rows(path)) == [("Tea, green", "x")]


def test_a_row_with_too_many_or_too_few_cells_is_rejected_and_reading_goes_on(tmp_path: Path) -> None:
    path = text_file(tmp_path / "c.csv", "name,type\na\nb,x,surplus\nc,x,,\nd,x\n")
    first, second, *good = open_rows(path)
    assert isinstance(first, Reject)
    assert isinstance(second, Reject)
    assert (first.id, first.source, first.reason) == (0, "c.csv:2", "1 cell where the header has 2")
    assert (second.id, second.source) == (1, "c.csv:3")
    assert "too many: 'surplus'" in second.reason
    assert second.values == {"name": "b", "type": "x"}
    assert [row.id for row in good] == [2, 3]
    assert all(isinstance(row, RawRow) for row in good)


@pytest.mark.parametrize("length", [100_001, 200_000])
def test_a_row_with_an_oversize_cell_is_rejected_and_reading_goes_on(tmp_path: Path, length: int) -> None:
    long = "x" * length
    csv_path = text_file(tmp_path / "c.csv", f"name,type\n{long},x\nb,x\n")
    jsonl_path = text_file(tmp_path / "c.jsonl", f'{{"name": "{long}"}}\n{{"name": "b"}}\n')
    for path in (csv_path, jsonl_path):
        reject, row = open_rows(path)
        assert isinstance(reject, Reject)
        assert "100,000" in reject.reason
        assert isinstance(row, RawRow)
        assert row.values["name"] == "b"
        assert len(str(dict(reject.values))) < 1_000


def test_a_quotation_mark_that_is_never_closed_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    for rest in ("c,x\n", "c,x\n" * 60_000):
        path = text_file(tmp_path / "c.csv", f'name,type\na,x\n"b,x\n{rest}')
        with pytest.raises(CatalogueError, match=r"c\.csv:3: .*quotation mark"):
            list(open_rows(path))


def test_quotation_marks_inside_an_unquoted_cell_are_text(tmp_path: Path) -> None:
    path = text_file(tmp_path / "c.csv", 'name,type\n15" LED,x\n')
    assert values(open_rows(path)) == [('15" LED', "x")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", "not JSON"),
        ('{"name": ["a"]}', "'name' holds a list"),
        ('{"name": {"en": "a"}}', "'name' holds an object"),
        ('"a"', "not a JSON object"),
        ('{"name": "a", "name": "b"}', "'name' is there twice"),
        ('{"name": NaN}', "NaN is no JSON"),
        ('{"name": "\\ud800"}', "surrogate"),
        ('{"name": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_json_line_is_rejected_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = text_file(tmp_path / "c.jsonl", f'{line}\n{{"name": "b", "type": "x"}}\n')
    reject, row = open_rows(path)
    assert isinstance(reject, Reject)
    assert reason in reject.reason
    assert (reject.id, reject.source) == (0, "c.jsonl:1")
    assert row == RawRow(1, "c.jsonl:2", {"name": "b", "type": "x"})


def test_json_lines_columns_are_all_keys_of_all_lines(tmp_path: Path) -> None:
    path = text_file(tmp_path / "c.jsonl", '{"name": "a"}\n{"type": "x", "name": "b"}\n')
    stream = open_rows(path)
    assert stream.columns == ("name", "type")
    assert values(stream) == [("a", ""), ("b", "x")]


def _parquet_bytes(folder: Path, table: pa.Table) -> bytes:
    parquet.write_table(table, folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


WRONG = {
    "an empty file": ("c.csv", b"", r"c\.csv: the file is empty"),
    "blank lines alone": ("c.csv", b"\n \n", r"c\.csv: the file is empty"),
    "blank JSON Lines": ("c.jsonl", b"\n\n", r"c\.jsonl: the file is empty"),
    "a header alone": ("c.csv", b"name,type\n", r"c\.csv: a header and no rows"),
    "a header without names": ("c.csv", b",,\na,b,c\n", r"c\.csv: the header names no column"),
    "a column twice": ("c.csv", b"name,type,name\na,x,b\n", r"'name' more than once"),
    "too many columns": ("c.csv", ",".join(f"c{i}" for i in range(1_001)).encode() + b"\n", r"1,001 columns"),
    "an oversize header": ("c.csv", b"x" * 200_000 + b",type\na,x\n", r"c\.csv:1: the header can't be read"),
    "Latin-1 text": ("c.csv", "name,type\na,x\nCafé,x\n".encode("latin-1"), r"c\.csv:3: byte 4 .*0xE9.*iconv"),
    "UTF-16 text": ("c.csv", "name,type\na,x\n".encode("utf-16"), r"UTF-16 text.*iconv"),
    "UTF-16 without its mark": ("c.csv", "name,type\na,x\n".encode("utf-16-le"), r"c\.csv:1: .*NUL bytes"),
    "NUL bytes": ("c.csv", b"name,type\na,x\nb\0,x\n", r"c\.csv:3: .*NUL bytes"),
    "gzip named .csv": ("c.csv", gzip.compress(b"name\na\n"), r"a gzip file.*Rename it to c\.csv\.gz"),
    "text named .csv.gz": ("c.csv.gz", b"name\na\n", r"not a gzip file"),
    "a cut gzip file": ("c.csv.gz", gzip.compress(b"name\n" + b"a\n" * 99)[:-12], r"gzip file is damaged"),
    "an old Excel file named .csv": ("c.csv", b"\xd0\xcf\x11\xe0rest", r"old \.xls kind"),
    "a web page": ("c.csv", b"<!doctype html><html>", r"a web page"),
    "ZIP named .csv": ("c.csv", b"PK\x03\x04rest", r"Rename it to c\.xlsx"),
    "text named .parquet": ("c.parquet", b"name\na\n", r"not a Parquet file"),
    "text named .xlsx": ("c.xlsx", b"name\na\n", r"not an Excel file"),
    "a damaged Parquet file": ("c.parquet", b"PAR1nonsense", r"the Parquet file can't be read"),
    "a damaged Excel file": ("c.xlsx", b"PK\x03\x04nonsense", r"the Excel file can't be read"),
    "an unknown suffix": ("c.cvs", b"name\na\n", r"'\.cvs' is no format.*'\.csv'"),
    "no suffix": ("c", b"name\na\n", r"the name has no suffix"),
    "compressed Parquet": ("c.parquet.gz", gzip.compress(b"x"), r"gunzip"),
    "a JSON array": ("c.jsonl", b'[{"name": "a"},\n', r"a JSON array, not JSON Lines.*jq"),
    "JSON without objects": ("c.jsonl", b'"a"\n', r"c\.jsonl:1: not a JSON object"),
}


@pytest.mark.parametrize(("name", "content", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CatalogueError, match=message) as caught:
        list(open_rows(tmp_path / name))
    assert len(str(caught.value)) < 600
    assert caught.value.exit_status == 2


def test_a_parquet_file_named_csv_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(_parquet_bytes(tmp_path, pa.table({"name": ["a"]})))
    with pytest.raises(CatalogueError, match=r"a Parquet file.*Rename it to c\.parquet"):
        open_rows(tmp_path / "c.csv")


def test_a_parquet_column_of_lists_and_a_parquet_file_without_rows_are_errors(tmp_path: Path) -> None:
    _parquet_bytes(tmp_path, pa.table({"name": ["a"], "tags": [["x"]]}))
    with pytest.raises(CatalogueError, match="'tags' holds list"):
        open_rows(tmp_path / "made.parquet")
    _parquet_bytes(tmp_path, pa.table({"name": pa.array([], pa.string())}))
    with pytest.raises(CatalogueError, match="a header and no rows"):
        open_rows(tmp_path / "made.parquet")


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    text_file(tmp_path / "products.csv", "name\na\n")
    with pytest.raises(CatalogueError, match=r"no such file\. Did you mean 'products\.csv'"):
        open_rows(tmp_path / "product.csv")
    with pytest.raises(CatalogueError, match="There is no folder"):
        open_rows(tmp_path / "nowhere" / "product.csv")
    with pytest.raises(CatalogueError, match="this is a folder"):
        open_rows(tmp_path)


@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))] * 2), min_size=1)
)
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = tmp_path_factory.mktemp("csv") / "c.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows([("name", "type"), *rows])
    assert values(open_rows(path)) == rows
