"""JSON Lines: one object a line. Numbers keep the digits they are written with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from shelfwise.data._cells import MAX_COLUMNS, columns_of, row_of, shown
from shelfwise.data._lines import lines
from shelfwise.errors import CatalogueError
from shelfwise.records import RawRow, Reject

# Escapes that give no text: halves of surrogate pairs can't be written again, NUL ends a text in many programs.
_ODD_ESCAPE = re.compile(r"\\u(?:d[89a-f]|0000)", re.IGNORECASE)
_ODD_CHARACTER = re.compile("[\ud800-\udfff\0]")


class JsonLines:
    """A JSON Lines file; iterating it reads it from its first row on."""

    def __init__(self, path: Path) -> None:
        """Read the whole file once for its columns: any line may bring a key that no earlier one had.

        Raises:
            CatalogueError: no object in the file, too many keys, or text that can't be read.
        """
        self._path = path
        self.columns: tuple[str, ...] = ()
        self._nameless: list[str] = []
        keys: dict[str, None] = {}
        any_line = False
        for line, text in self._written_lines():
            if not any_line and text.lstrip().startswith("["):
                raise CatalogueError(
                    f"{path}:{line}: this is a JSON array, not JSON Lines. Write one object a line: "
                    f"jq -c '.[]' {path.name} > lines.jsonl"
                )
            any_line = True
            record = _parse(text)
            if isinstance(record, str):
                continue  # iterating will reject it
            keys.update(dict.fromkeys(record))
            if len(keys) > MAX_COLUMNS:
                raise CatalogueError(f"{path}:{line}: more than {MAX_COLUMNS:,} different keys up to here.")
        if not any_line:
            raise CatalogueError(f"{path}: the file is empty: it holds only blank lines.")
        if not keys:
            first = next(iter(self))
            reason = first.reason if isinstance(first, Reject) else "an object without keys"
            raise CatalogueError(f"{path}: no line holds an object with keys; the first, {first.source}: {reason}.")
        self._nameless = [key for key in keys if not key.strip()]
        self.columns = columns_of([key for key in keys if key.strip()], path)

    def __iter__(self) -> Iterator[RawRow | Reject]:
        columns = self.columns
        keys = [*columns, *self._nameless]  # a value under no name is one too many
        for number, (line, text) in enumerate(self._written_lines()):
            source = f"{self._path.name}:{line}"
            record = _parse(text)
            if isinstance(record, str):
                yield Reject(number, source, record)
            else:
                yield row_of(number, source, [record.get(key, "") for key in keys], columns)

    def _written_lines(self) -> Iterator[tuple[int, str]]:
        return ((line, text) for line, text in lines(self._path) if text.strip())


class _NoTextError(ValueError):
    """A line of JSON that is no flat record of texts."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _NoTextError(f"the key '{shown(next(key for key in keys if keys.count(key) > 1))}' is there twice")
    return record


def _no_number(literal: str) -> str:
    raise _NoTextError(f"{literal} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=str, parse_int=str, parse_constant=_no_number)


def _parse(text: str) -> dict[str, str] | str:
    """One line's record, or why it is none."""
    try:
        value = _DECODER.decode(text.strip())
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    except _NoTextError as error:
        return str(error)
    except RecursionError:
        return "not usable JSON: nested too deeply"
    if not isinstance(value, dict):
        return f"not a JSON object, but {_kind(value)}"
    record = {}
    for key, cell in value.items():
        if isinstance(cell, (dict, list)):
            return f"'{shown(key)}' holds {_kind(cell)}; a cell is text, a number, true, false or null"
        record[key] = _cell(cell)
    if "\\u" in text and _ODD_ESCAPE.search(text):
        for key, content in record.items():
            if _ODD_CHARACTER.search(key) or _ODD_CHARACTER.search(content):
                return "it escapes a character that is none (half of a surrogate pair, or NUL)"
    return record


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else "a single value"
