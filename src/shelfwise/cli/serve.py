"""`shelfwise serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shelfwise.cli import _shared


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", short_help="Answer over HTTP, with pages for people.")(command)


def command(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders, each as PATH or NAME=PATH; the first is the default."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 is any free one.")] = 8000,
    classifier: _shared.ClassifierOption = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="Short for --classifier baseline.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    precision: Annotated[_shared.Arithmetic, typer.Option(help="Of the model's arithmetic.")] = _shared.Arithmetic.auto,
    store: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Review queue: an SQLite file or postgresql://...; unsure answers go there."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of uploaded files and their results.")
    ] = None,
    api_keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Lines of NAME SHA256 [admin]; else $SHELFWISE_API_KEYS. Default: no keys."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="A site whose pages may ask, as https://shop.example.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds until a request gets no answer any more.")] = 30.0,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="How long an idle model waits to fill a batch.")] = 0.0,
    max_batch: Annotated[int, typer.Option(min=1, help="Products a batch; 1 turns batching off.")] = 256,
    max_items: Annotated[int, typer.Option(min=1, help="Products a request.")] = 1_000,
    max_characters: Annotated[int, typer.Option(min=1, help="Characters of all products of a request.")] = 200_000,
    max_queue_characters: Annotated[
        int, typer.Option(min=1, help="Characters that may wait; what comes on top is told to come again.")
    ] = 262_144,
    max_in_flight: Annotated[
        int, typer.Option(min=1, help="API requests at once; others are told to come again.")
    ] = 128,
    max_body_mib: Annotated[float, typer.Option(min=0.001, help="MiB of an API request.")] = 2.0,
    max_upload_mib: Annotated[float, typer.Option(min=0.001, help="MiB of an uploaded file.")] = 512.0,
    drain_delay: Annotated[float, typer.Option(min=0, help="Seconds after SIGTERM in which it still answers.")] = 1.0,
    drain_timeout: Annotated[float, typer.Option(min=0, help="Seconds that requests in flight then have.")] = 30.0,
    log_names: Annotated[bool, typer.Option("--log-names", help="Write product names into the log.")] = False,
) -> None:
    """Classify over HTTP, and show pages to try, upload, review, report and monitor.

    The API is described in docs/http-api.md and at /openapi.json. The log is JSON on standard error. SIGTERM ends the
    service once its requests are answered; SIGHUP loads the run folders again.
    """
    from shelfwise.errors import MissingPackageError

    try:
        from shelfwise.server.runner import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "shelfwise":
            raise
        what = f"The service needs {error.name}, which is not installed: pip install 'shelfwise[serve]'"
        raise MissingPackageError(what) from error
    from shelfwise.server.settings import MIB, Batching, Limits, Settings

    limits = Limits(
        max_body_bytes=int(max_body_mib * MIB),
        max_upload_bytes=int(max_upload_mib * MIB),
        max_items=max_items,
        max_characters=max_characters,
        timeout_s=timeout,
        max_in_flight=max_in_flight,
    )
    batching = Batching(
        max_wait_s=max_wait_ms / 1000, max_batch_products=max_batch, max_queue_characters=max_queue_characters
    )
    settings = Settings(
        runs=tuple(runs),
        host=host,
        port=port,
        which=_shared.who(classifier, baseline),
        device=device,
        precision=precision.value,
        store=store,
        data=data,
        api_keys=api_keys,
        cors_origins=tuple(cors_origin or ()),
        log_names=log_names,
        drain_delay_s=drain_delay,
        drain_timeout_s=drain_timeout,
        limits=limits,
        batching=batching,
    )
    serve(settings, announce=lambda address: typer.echo(f"serving at {address}"))
