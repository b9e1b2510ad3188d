"""How a service is run: what it serves, where, and every bound on what a client may ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shelfwise.config import Arithmetic
from shelfwise.errors import InputError
from shelfwise.records import Which

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one request. What is over one is refused before it costs anything."""

    max_body_bytes: int = 2 * MIB  # of an API request
    max_upload_bytes: int = 512 * MIB  # of any other: files for the pages
    max_json_depth: int = 16
    max_items: int = 1_000  # products a request
    max_characters: int = 200_000  # of all texts of a request
    body_timeout_s: float = 20.0  # from the headers to the last byte of an API request's body
    timeout_s: float = 30.0  # until an answer; a request may ask for less
    max_in_flight: int = 128  # API requests at once; more would only wait, for the loop or for the model


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests share a model. The queue is bounded in characters, which the cost of an answer follows."""

    max_wait_s: float = 0.0  # how long an idle model waits for company; a busy one gathers it anyway
    max_batch_products: int = 256
    max_batch_characters: int = 16_384  # about 4k tokens, from where a GPU is saturated (docs/lab-notes.md)
    max_queue_characters: int = 262_144


@dataclass(frozen=True, slots=True)
class Settings:
    """One service."""

    runs: tuple[str, ...]  # run folders, each as PATH or NAME=PATH; the first is the default
    host: str = "127.0.0.1"
    port: int = 8000
    which: Which = "auto"
    device: str = "auto"
    precision: Arithmetic = "auto"
    store: str | None = None  # review queue: an SQLite file or postgresql://...; answers to review go there
    data: Path | None = None  # where uploads and their results are kept
    api_keys: Path | None = None  # lines of NAME SHA256 [admin]; else $SHELFWISE_API_KEYS
    cors_origins: tuple[str, ...] = ()  # "https://shop.example"; none: browsers of other sites get nothing
    log_names: bool = False  # product names in the log
    drain_delay_s: float = 1.0  # after SIGTERM: not ready any more, and still answering
    drain_timeout_s: float = 30.0  # and how long requests in flight may then take
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError("Name at least one run folder to serve.")
        if not 0 <= self.port <= 65_535:
            raise InputError(f"A port lies between 0 and 65535, not {self.port}.")
        if self.limits.max_characters > self.batching.max_queue_characters:
            raise InputError(
                f"One request may hold {self.limits.max_characters:,} characters, but the queue only "
                f"{self.batching.max_queue_characters:,}: raise --max-queue-characters or lower --max-characters."
            )
        for origin in self.cors_origins:
            if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
                raise InputError(f"'{origin}' is no origin; one looks like https://shop.example.")


def named_runs(runs: Sequence[str]) -> dict[str, Path]:
    """Run folders by the names that clients use: the folder's own, unless given as NAME=PATH.

    Raises:
        InputError: two of one name, or a name that is none.
    """
    found: dict[str, Path] = {}
    for entry in runs:
        name, equals, path = entry.partition("=")
        if not equals or Path(entry).is_dir():
            name, path = Path(entry).resolve().name, entry
        if not name or len(name) > 200 or not name.isprintable():
            raise InputError(f"'{entry}': a model's name has 1 to 200 printable characters. Give one as NAME={path}")
        if name in found:
            raise InputError(f"Two runs are called '{name}'. Give one of them another name: OTHER={path}")
        found[name] = Path(path)
    return found
