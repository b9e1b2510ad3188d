"""The part of the leakage gate that finds products which another part holds too, but for a size or a word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shelfwise.data.names import name_key
from shelfwise.records import Product

Key = tuple[str, str]  # (sizeless name, inventory type)

# Smallest cosine of a near duplicate. Measured on BigBasket's grouped split, each test name beside the nearest other
# training name of any type: from 0.95 on 95% of those pairs share the type and 83% the brand, from 0.9 81% and 59%,
# from 0.8 71% and 50%. Of pairs of one type that were read, those above 0.9 differ in a colour, a flavour, a garment's
# size or the order of words; below it more and more are other products. (Names equal but for a size, 72% and 21%: most
# are generic, so their type must be compared too.)
THRESHOLD = 0.9
BLOCK_ROWS = 1_024  # names a side of one matrix product: at most a million cosines are held at a time
# Names compared at most, asked times seen. BigBasket's grouped split has 88 million: 3 to 4 s on two cores.
MAX_PAIRS = 400_000_000
_FEATURES = 2**20
_UNITS = (
    "kgs?|g|gms?|grams?|mg|ml|l|lt|ltrs?|lit(?:er|re)s?|oz|lbs?|cms?|mm|inch(?:es)?|ft|pcs?|pieces?|packs?|nos?|units?|"
    "sachets?|sheets?|tablets?|capsules?|pulls?|rolls?|bags?|wipes?|pads?|pairs?"
)
# In a `name_key`, where "1.5 kg" reads "1 5 kg" and "(Pack of 2)" reads "pack of 2".
_SIZE = re.compile(rf"\b(?:(?:pack|set|box|combo|bundle) of \d+|\d+ ?x(?= ?\d)|(?:\d+ )*\d+ ?(?:{_UNITS}))\b")


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Products that have a near duplicate in another part."""

    pairs: tuple[tuple[Product, Product], ...]  # (asked, its nearest among the seen), in the order of the asked
    looked_at: int  # asked products that were compared; all of them unless there are too many


def sizeless(key: str) -> str:
    """A `names.name_key` without sizes and pack counts: ``"olive oil 1 l"`` and ``"olive oil 500 ml"`` are equal here.

    A shop lists a product once a size; a model that was taught one of them has been told the type of the others.
    A number without a unit stays, and so does a name that is a size alone.
    """
    return " ".join(_SIZE.sub(" ", key).split()) or key


def near_duplicates(
    seen: Sequence[Product],
    asked: Sequence[Product],
    *,
    threshold: float = THRESHOLD,
    block_rows: int = BLOCK_ROWS,
    max_pairs: int = MAX_PAIRS,
) -> NearDuplicates:
    """Those of `asked` that have a product of the same type and of nearly the same name in `seen`.

    Names are compared as `sizeless` gives them, by the cosine of their counts of character n-grams (3 to 5 characters
    within words, hashed: nothing is fitted, so a pair's cosine depends on that pair alone).

    Args:
        seen: products that a model is taught.
        asked: products that it is asked about.
        threshold: smallest cosine, above 0.
        block_rows: names a side of one matrix product. It bounds the memory and never changes the result.
        max_pairs: where there are more pairs of names, evenly spaced ones of `asked` stand for all.
    """
    taught: dict[Key, Product] = {}
    for product in seen:
        taught.setdefault(_key(product), product)
    keys = [_key(product) for product in asked]
    distinct = list(dict.fromkeys(keys))
    step = max(1, -(-len(distinct) * len(taught) // max_pairs))
    looked_at = set(distinct[::step])
    nearest = {key: taught[key] for key in looked_at if key in taught}
    others = [key for key in distinct[::step] if key not in nearest]
    names = list(taught)
    for row, column in _most_similar(names, others, threshold, block_rows).items():
        nearest[others[row]] = taught[names[column]]
    return NearDuplicates(
        pairs=tuple((product, nearest[key]) for product, key in zip(asked, keys, strict=True) if key in nearest),
        looked_at=sum(key in looked_at for key in keys),
    )


def _key(product: Product) -> Key:
    return sizeless(name_key(product.name)), product.label or ""


def _most_similar(seen: Sequence[Key], asked: Sequence[Key], threshold: float, block_rows: int) -> dict[int, int]:
    """For positions in `asked`: the position in `seen` of the most similar name of the same type; the first of equals.

    A position without one of at least `threshold` is left out.
    """
    types = {label: number for number, label in enumerate(dict.fromkeys(label for _, label in (*seen, *asked)))}
    seen_types, asked_types = (np.array([types[label] for _, label in keys], np.int64) for keys in (seen, asked))
    blocks = [_vectors(asked[start : start + block_rows]) for start in range(0, len(asked), block_rows)]
    best: dict[int, tuple[float, int]] = {}
    for first_seen in range(0, len(seen), block_rows):
        columns = _vectors(seen[first_seen : first_seen + block_rows]).T.tocsr()
        for number, block in enumerate(blocks):
            cosines = (block @ columns).tocoo()
            similar = np.flatnonzero(cosines.data >= threshold)
            rows, found = cosines.row[similar] + number * block_rows, cosines.col[similar] + first_seen
            same = asked_types[rows] == seen_types[found]
            for row, column, cosine in zip(
                rows[same].tolist(), found[same].tolist(), cosines.data[similar][same].tolist(), strict=True
            ):
                known = best.get(row)
                if known is None or (-cosine, column) < (-known[0], known[1]):
                    best[row] = (cosine, column)
    return {row: column for row, (_, column) in best.items()}


def _vectors(keys: Sequence[Key]) -> Any:
    """(N, F) float32 sparse: counts of n-grams, each row of length 1."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=_FEATURES, dtype=np.float32)
    return vectorizer.transform([name for name, _ in keys])
