"""The packaged sample: a catalogue of invented products to learn from, and a small file of new ones to predict.

`README.md` beside this file says what is in them and which defects are planted where.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def catalogue_path() -> Path:
    """The labelled sample catalogue: UTF-8 CSV with product, category, sub_category, brand, type."""
    return _FOLDER / "catalogue.csv"


def new_products_path() -> Path:
    """Products without a type, for `predict`: UTF-8 CSV with sku, product, brand. No name is in the catalogue."""
    return _FOLDER / "new_products.csv"
