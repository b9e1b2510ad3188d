"""What a prediction job decides, and refuses, before a model is loaded."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shelfwise import artifact
from shelfwise import config as configs
from shelfwise.config import Columns, Role
from shelfwise.data.catalogue import recognise
from shelfwise.data.compression import compression_of, plain_name
from shelfwise.data.reader import RowStream
from shelfwise.data.writer import Column, Format, format_of
from shelfwise.errors import InputError
from shelfwise.pipelines.predict_answers import Answerer
from shelfwise.pipelines.predict_inputs import find_inputs, open_inputs, rejects_path
from shelfwise.pipelines.predict_parts import may_replace
from shelfwise.storage import require_new

ADDED = (
    Column("predicted_type"),
    Column("confidence", "share"),
    Column("decision"),
    Column("level"),
    Column("top_k", "ranking"),
    Column("path", "path"),
    Column("sure_path", "path"),
    Column("model"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A job that can begin."""

    sources: tuple[Path, ...]
    stream: RowStream  # of all sources
    roles: Mapping[str, str]  # role to column, of what the model reads
    text_columns: tuple[Role, ...]  # what the model reads
    out: Path
    rejects: Path
    added: tuple[str, ...]  # the names of `ADDED` in this output

    @property
    def format(self) -> Format:
        """The output's, whether compressed or not."""
        return format_of(plain_name(self.out))

    @property
    def headings(self) -> list[Column]:
        """The columns of the output."""
        named = (Column(name, column.kind) for name, column in zip(self.added, ADDED, strict=True))
        return [*map(Column, self.stream.columns), *named]

    @property
    def reject_headings(self) -> list[Column]:
        """The columns of the rejects file."""
        return [Column(name) for name in (*free_names(("source", "reason"), self.stream.columns), *self.stream.columns)]

    @property
    def renamed(self) -> dict[str, str]:
        """Names of `ADDED` that the input already has, to what they became."""
        return {column.name: name for column, name in zip(ADDED, self.added, strict=True) if column.name != name}


def make_plan(
    run: Path, source: Path, out: Path, *, columns: Columns, force: bool, resume: bool, answerer: Answerer | None
) -> Plan:
    """Check the outputs, the input and the run, in this order.

    Args:
        run: a run folder; not read when there is an `answerer`.
        source: the file of products, or a folder or pattern of them.
        out: the file to write.
        columns: which column plays which role. A role left open goes to the column that the run was trained with, if
            the file has it, else to one of the usual names.
        force: files may be overwritten.
        resume: an unfinished job is to be taken up; what it has already put in place may be overwritten.
        answerer: one that is already loaded.

    Raises:
        InputError: one of them is wrong.
        CorruptArtifactError: the run folder lacks a file.
    """
    sources = find_inputs(source)
    rejects = rejects_path(out)
    _check_outputs(sources, (out, rejects), force or (resume and may_replace(out)))
    stream = open_inputs(sources)
    usual, text_columns = (Columns(), answerer.text_columns) if answerer else _reading_of(run)
    roles = recognise(stream.columns, _filled(columns, usual, stream.columns), stream.path)
    missing = [role for role in text_columns if role not in roles]
    if missing:
        raise InputError(
            f"{stream.path}: this run's model reads {', '.join(text_columns)}, and no column was recognised as "
            f"{' or '.join(missing)}. Name it, as in --{missing[0].replace('_', '-')} COLUMN."
        )
    # Only what the model reads: an oversized category is no reason to reject a product.
    read: dict[str, str] = {role: roles[role] for role in ("product", *text_columns)}
    added = free_names([column.name for column in ADDED], stream.columns)
    return Plan(sources, stream, read, text_columns, out, rejects, added)


def free_names(wanted: Sequence[str], taken: Iterable[str]) -> tuple[str, ...]:
    """The wanted column names; one that the input already has gets the first free number, as in `model_2`.

    Many catalogues have a `model` or a `path`, and a file of predictions may be predicted again; neither is an error.
    """
    present = set(taken)
    used = present | set(wanted)
    names = []
    for name in wanted:
        free = name
        if name in present:
            free = next(f"{name}_{number}" for number in itertools.count(2) if f"{name}_{number}" not in used)
        used.add(free)
        names.append(free)
    return tuple(names)


def _check_outputs(sources: Sequence[Path], outputs: Sequence[Path], force: bool) -> None:
    compression = compression_of(outputs[0])
    if format_of(plain_name(outputs[0])) in ("parquet", "xlsx") and compression:
        raise InputError(f"{outputs[0]}: such a file is compressed already. Leave the {compression} away.")
    for output in outputs:
        if output.is_dir():
            raise InputError(f"{output}: this is a folder. Name a file in it to write to.")
        same = [source for source in sources if output.exists() and source.exists() and output.samefile(source)]
        if same:
            raise InputError(f"{same[0]}: the output would overwrite its own input. Choose another name for --out.")
        require_new(output, force=force)
    folder = next(parent for parent in outputs[0].absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "no permission to write there" if folder.is_dir() else "not a folder"
        raise InputError(f"{folder}: {what}. Choose another place for {outputs[0].name}.")


def _reading_of(run: Path) -> tuple[Columns, tuple[Role, ...]]:
    """The columns that a run was trained with, and what its model reads."""
    artifact.read_manifest(run, verify=False)
    config = configs.load(run / artifact.CONFIG)
    return config.columns, config.text_columns


def _filled(wanted: Columns, usual: Columns, present: Sequence[str]) -> Columns:
    """The wanted columns; where none is named, the usual one if the file has it."""
    known = {role: name for role, name in usual.model_dump().items() if name in present}
    return wanted.model_copy(update={role: name for role, name in known.items() if getattr(wanted, role) is None})
