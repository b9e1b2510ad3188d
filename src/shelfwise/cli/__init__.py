"""The command line: one file a command, each a thin parser over a function that Python callers use too."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

import typer

from shelfwise import __version__
from shelfwise.cli import (
    audit_labels,
    check,
    compare,
    demo,
    evaluate,
    export,
    models,
    plan,
    predict,
    review,
    serve,
    split,
    train,
)
from shelfwise.errors import ShelfwiseError
from shelfwise.processes import BACKGROUND

# The base of all wrong calls: click's ClickException, of which newer typers (0.29 is one) carry their own copy.
_CallError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(
    name="shelfwise",
    help="Teaches a language model a retailer's shelves: from product names to inventory types.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shelfwise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Teaches a language model a retailer's shelves: from product names to inventory types."""


for _module in (
    demo,
    models,
    plan,
    check,
    audit_labels,
    split,
    train,
    evaluate,
    compare,
    predict,
    export,
    review,
    serve,
):
    _module.register(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after ``shelfwise``; the process's own when None.

    Returns:
        Exit status: 0 done, 1 the work failed, 2 the input or the call is wrong.
    """
    try:
        status = app(args=None if arguments is None else list(arguments), standalone_mode=False)
        if status == 130:  # newer typers turn Ctrl-C into this status, and say nothing
            raise KeyboardInterrupt
    except ShelfwiseError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_status
    except _CallError as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("error: interrupted. Nothing was written under a final name.", err=True)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:  # where nobody foresaw it: a folder that may not be entered, a name that is too long
        if error.filename is None:
            raise
        typer.echo(f"error: {error.filename}: {error.strerror}. Choose another place, or make it usable.", err=True)
        return 1
    return status if isinstance(status, int) else 0


def main() -> None:
    """Entry point of the `shelfwise` command."""
    status = run()
    if any(thread.name.startswith(BACKGROUND) for thread in threading.enumerate()):
        # Interrupted with a part at work: who pressed Ctrl-C need not wait for it, and no file of it is open.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
