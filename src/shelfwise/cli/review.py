"""`shelfwise review`: the queue of doubtful products, and what people decided about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shelfwise.cli import _shared

if TYPE_CHECKING:
    from shelfwise.review.items import Action, Item, Progress
    from shelfwise.review.store import Store

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="STORE",
        envvar="SHELFWISE_REVIEW_STORE",
        help="Where the queue is: an SQLite file, or postgresql://USER@HOST/NAME.",
    ),
]
Reviewer = Annotated[str, typer.Option("--reviewer", metavar="NAME", help="Who decides.")]

review = typer.Typer(no_args_is_help=True, help="Settle by hand what the classifier was unsure of.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(review, name="review", short_help="Settle by hand what the classifier was unsure of.")


@contextmanager
def _opened(url: str, *, create: bool = False) -> Iterator[Store]:
    from shelfwise.review import open_store

    with open_store(url, create=create) as store:
        yield store


@review.command("load", short_help="Put a file's doubtful rows into the queue.")
def load(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `shelfwise predict` or `shelfwise audit-labels` wrote.")
    ],
    store: StoreOption,
    every_row: Annotated[bool, typer.Option("--all", help="Also the rows that were accepted.")] = False,
    examples: Annotated[
        Path | None, typer.Option(metavar="CATALOGUE", help="Show reviewers names from it for each type.")
    ] = None,
    product: _shared.ProductColumn = None,
    type_: _shared.TypeColumn = None,
    brand: _shared.BrandColumn = None,
    category: _shared.CategoryColumn = None,
    sub_category: _shared.SubCategoryColumn = None,
    as_json: _shared.JsonOption = False,
) -> None:
    """Put the rows of a file into the queue; the store is made when it is missing.

    Rows of one name and brand become one item, and one decision settles them all. The same file loaded again adds
    nothing.
    """
    from shelfwise.pipelines.review_load import LoadJob, examples_of

    job = LoadJob.of(source, _shared.columns(product, type_, brand, category, sub_category), every_row=every_row)
    shown = examples_of(examples) if examples else ()
    with _opened(store, create=True) as opened, _shared.progress_bar("{task.completed:,} rows") as bar:
        task = bar.add_task("loading", total=None)
        found = job.run(opened, lambda done: bar.update(task, completed=done))
        names = opened.add_examples(shown)
    if as_json:
        _shared.print_json({**found.to_json(), "examples": names})
        return
    what = "rows" if every_row or found.kind == "label audit" else "rows to review"
    typer.echo(f"{source}: {found.wanted:,} {what} of {found.rows:,}, {found.items:,} new in the queue")
    if examples:
        typer.echo(f"{examples}: {names:,} new names as examples")
    for reject in found.first_rejects:
        typer.echo(f"  left out: {reject.source}: {reject.reason}")
    if found.rejected > len(found.first_rejects):
        typer.echo(f"  and {found.rejected - len(found.first_rejects):,} more")


@review.command("next", short_help="What to decide next.")
def next_(store: StoreOption, reviewer: Reviewer, as_json: _shared.JsonOption = False) -> None:
    """Show the product that this reviewer should decide next, and reserve it for some minutes."""
    with _opened(store) as opened:
        item = opened.next_item(reviewer)
    if as_json:
        _shared.print_json(None if item is None else asdict(item))
    elif item is None:
        typer.echo("Nothing is left to decide.")
    else:
        _print_item(item)


@review.command("decide", short_help="Settle or skip one product.")
def decide(
    item: Annotated[int, typer.Argument(metavar="ITEM", help="Its number, as `next` shows it.")],
    store: StoreOption,
    reviewer: Reviewer,
    version: Annotated[int, typer.Option(help="Its version, as `next` shows it.")],
    accept: Annotated[bool, typer.Option("--accept", help="The predicted type is right.")] = False,
    type_: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="This type is right.")] = None,
    new_type: Annotated[bool, typer.Option("--new-type", help="TYPE is one that this review does not know.")] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Leave it to others.")] = False,
    same_name: Annotated[
        bool, typer.Option("--same-name", help="Settle the open items of this name under other brands too.")
    ] = False,
    comment: Annotated[str, typer.Option(help="Kept with the decision.")] = "",
    as_json: _shared.JsonOption = False,
) -> None:
    """Settle or skip one product. One that has changed since it was shown is left as it is, with status 1."""
    from shelfwise.errors import InputError
    from shelfwise.review import Decision

    if accept + (type_ is not None) + skip != 1:
        raise InputError("Give one of --accept, --type TYPE and --skip.")
    if new_type and type_ is None:
        raise InputError("--new-type goes with --type TYPE, and there is none. Name the type, or leave --new-type out.")
    action: Action = "accept" if accept else "skip" if skip else "correct"
    decision = Decision(action, reviewer, version, type=type_, comment=comment, same_name=same_name)
    with _opened(store) as opened:
        if decision.type is not None and not new_type:
            _require_known(decision.type, opened)
        found = opened.decide(item, decision)
    if as_json:
        _shared.print_json(asdict(found))
    else:
        typer.echo(f"{found.name}: {found.settled_type or 'skipped'}")


def _require_known(type_: str, store: Store) -> None:
    """Refuse a type that the review has not met: it is a slip more often than a new one."""
    from shelfwise.errors import InputError, did_you_mean

    known = store.types()
    if type_ not in known:
        raise InputError(
            f"--type: '{type_}' is not one of the {len(known):,} types that this review knows."
            f"{did_you_mean(type_, sorted(known))} If it is to be a new one, add --new-type."
        )


@review.command("undo", short_help="Take back the last decision.")
def undo(store: StoreOption, reviewer: Reviewer, as_json: _shared.JsonOption = False) -> None:
    """Take back this reviewer's last decision, and all that were settled with it."""
    with _opened(store) as opened:
        item = opened.undo(reviewer)
    if as_json:
        _shared.print_json(None if item is None else asdict(item))
    else:
        typer.echo("There is nothing to take back." if item is None else f"{item.name}: open again")


@review.command("status", short_help="How far the review is.")
def status(store: StoreOption, as_json: _shared.JsonOption = False) -> None:
    """Show how many products are open and settled, and how often people agreed with the predicted type."""
    with _opened(store) as opened:
        progress, overrides = opened.progress(), opened.overrides(limit=10)
    if as_json:
        counts = {**asdict(progress), "settled": progress.settled, "agreement": progress.agreement}
        _shared.print_json({**counts, "overrides": [asdict(override) for override in overrides]})
        return
    _print_progress(progress)
    if overrides:
        typer.echo("most frequent corrections:")
    for override in overrides:
        typer.echo(f"  {override.predicted_type} -> {override.settled_type}: {override.items:,}")


@review.command("export", short_help="Write decisions as a catalogue file.")
def export(
    store: StoreOption,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write: .csv, .tsv, .jsonl, .parquet or .xlsx.")],
    catalogue: Annotated[
        Path | None,
        typer.Option(metavar="CATALOGUE", help="Write this catalogue with the decisions put into it, to train on."),
    ] = None,
    product: _shared.ProductColumn = None,
    type_: _shared.TypeColumn = None,
    brand: _shared.BrandColumn = None,
    category: _shared.CategoryColumn = None,
    sub_category: _shared.SubCategoryColumn = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
    as_json: _shared.JsonOption = False,
) -> None:
    """Write the settled products as a catalogue file, with who decided, when, and against which prediction.

    With --catalogue the whole catalogue is written: rows that a decision is about with the type that people settled,
    and settled products that it lacks at the end.
    """
    from shelfwise.pipelines.review_export import export as write

    columns = _shared.columns(product, type_, brand, category, sub_category)
    with _opened(store) as opened:
        found = write(opened, out, catalogue=catalogue, columns=columns, force=force)
    if as_json:
        _shared.print_json(found.to_json())
        return
    typer.echo(f"{out}: {found.rows:,} rows; {found.settled:,} settled products, {found.corrected:,} of them corrected")
    if found.catalogue:
        typer.echo(
            f"  {found.matched:,} rows of {found.catalogue} were decided about, {found.changed:,} have a new type"
        )
        typer.echo(f"  {found.appended:,} products were appended")
    for reject in found.first_rejects:
        typer.echo(f"  left out: {reject.source}: {reject.reason}")
    if found.rejected > len(found.first_rejects):
        typer.echo(f"  and {found.rejected - len(found.first_rejects):,} more")


def _print_item(item: Item) -> None:
    brand = f" ({item.brand})" if item.brand else ""
    typer.echo(f"{item.name}{brand}")
    typer.echo(f"  item {item.id}, version {item.version}; {item.reason}; {item.rows:,} rows of this name and brand")
    if item.same_name:
        typer.echo(f"  {item.same_name:,} more of this name are open under other brands")
    if item.given_type:
        typer.echo(f"  the catalogue says {item.given_type}")
    for label, share in item.top_k:
        typer.echo(f"  {share:>6.1%}  {label}")


def _print_progress(progress: Progress) -> None:
    share = f" ({progress.settled / progress.total:.1%})" if progress.total else ""
    typer.echo(f"{progress.settled:,} of {progress.total:,} products are settled{share}")
    typer.echo(
        f"  {progress.open:,} open, {progress.skipped:,} of them skipped, {progress.leased:,} before somebody now"
    )
    typer.echo(f"  {progress.settled_rows:,} rows settled, {progress.open_rows:,} open")
    if progress.agreement is not None:
        typer.echo(f"  the predicted type was accepted in {progress.agreement:.1%}")
    for one in progress.reviewers:
        typer.echo(f"  {one.reviewer}: {one.accepted:,} accepted, {one.corrected:,} corrected")
