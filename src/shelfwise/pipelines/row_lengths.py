"""How long training rows are, in tokens: counted where there is a tokenizer, else reckoned from their letters."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shelfwise.config import TrainConfig
from shelfwise.data.catalogue import read_catalogue, require_trainable
from shelfwise.modeling.packed.tiles import computed_shares
from shelfwise.prompts import PromptFormat
from shelfwise.records import Product

# BigBasket's prompts with SmolLM2's tokenizer: 12.1 tokens on average, standard deviation 5.7, 57 at most; 61 with one
# trained on the names.
_USUAL_MEAN, _USUAL_LONGEST, _USUAL_SPREAD = 12.1, 61, 5.7
# What is computed of such prompts where rows that begin alike lie together (`modeling.packed.tiles`).
_USUAL_SHARES = ((64, 1.04), (256, 0.97), (1024, 0.91), (4096, 0.85))
# Its types: 4.7 tokens on average and 12 at most, and the end of text.
_LABEL_MEAN, _LABEL_LONGEST = 5.7, 13
# UTF-8 bytes a token of its names: 3.1 on average; 2.2 for the longest one, so that its length is not undercut.
_MEAN_BYTES, _LONGEST_BYTES = 3.1, 2.2


@dataclass(frozen=True, slots=True)
class RowLengths:
    """Tokens of the training rows, and where they are known from."""

    longest: int
    mean: float
    products: int | None  # training rows of the catalogue; None without one
    source: str
    spread: float = 0.0  # standard deviation
    shares: tuple[tuple[int, float], ...] = ()  # `modeling.packed.tiles.computed_shares`


def row_lengths(config: TrainConfig, longest: int | None = None) -> RowLengths:
    """Lengths of the rows that a run would train on; of `completion` rows the type is a part.

    Args:
        config: a `catalogue` may be named; where the model is a folder, its tokenizer counts.
        longest: what the caller knows of the longest row.

    Raises:
        CatalogueError: the catalogue can't be used.
        CorruptArtifactError: the folder's tokenizer can't be loaded.
    """
    if config.catalogue is None:
        return _usual(config, longest)
    catalogue = read_catalogue(config.catalogue, config.columns, config.text_columns, labels="required")
    require_trainable(catalogue)
    folder = Path(config.model).expanduser()
    if (folder / "tokenizer.json").is_file():
        rows = _encoded(config, catalogue.labelled, folder)
        lengths, shares = [len(row) for row in rows], computed_shares(rows)
        most, mean, source = max(lengths), sum(lengths) / len(lengths), "counted with the model's tokenizer"
        spread = statistics.pstdev(lengths)
    else:
        sizes, shares = _bytes(config, catalogue.labelled), _USUAL_SHARES
        most, mean = math.ceil(max(sizes) / _LONGEST_BYTES), sum(sizes) / len(sizes) / _MEAN_BYTES
        source, spread = "reckoned from the names' letters", statistics.pstdev(sizes) / _MEAN_BYTES
    trained = len(catalogue.labelled) * (1 - config.split.test_size) * (1 - config.split.validation_size)
    return RowLengths(longest or most, round(mean, 1), round(trained), source, round(spread, 1), shares)


def _usual(config: TrainConfig, longest: int | None) -> RowLengths:
    completes = config.objective == "completion"
    mean = _USUAL_MEAN + (_LABEL_MEAN if completes else 0)
    if longest is not None:
        return RowLengths(
            longest, round(min(mean, longest), 1), None, "the longest as given", _USUAL_SPREAD, _USUAL_SHARES
        )
    most = _USUAL_LONGEST + (_LABEL_LONGEST if completes else 0)
    return RowLengths(
        most, round(mean, 1), None, "usual product names; --catalogue for yours", _USUAL_SPREAD, _USUAL_SHARES
    )


def _encoded(config: TrainConfig, products: Sequence[Product], folder: Path) -> list[list[int]]:
    """Token ids of each row."""
    from shelfwise.modeling.encoding import Encoder, load_tokenizer

    encoder = Encoder(load_tokenizer(folder), PromptFormat())
    rows = encoder.encode([product.text for product in products])
    if config.objective == "head":
        return rows
    ends = encoder.completions([product.label or "" for product in products])
    return [[*row, *end] for row, end in zip(rows, ends, strict=True)]


def _bytes(config: TrainConfig, products: Sequence[Product]) -> list[int]:
    """UTF-8 bytes of each row."""
    prompts = PromptFormat()
    if config.objective == "head":
        return [len(prompts.prompt(product.text).encode()) for product in products]
    return [len(prompts.labelled(product.text, product.label or "").encode()) for product in products]
