"""Prediction jobs with a fake classifier, and the same small file of products in every format."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
from pyarrow import parquet

from shelfwise.calibration import Calibration
from shelfwise.classifier import Classifier
from shelfwise.labels import Labels, Taxonomy
from shelfwise.pipelines.predict import PredictionSummary, predict

LABELS = Labels(
    ("=Odd", "Shampoo", "Tea, Green"),
    Taxonomy({"=Odd": (("Drinks", "", 1),), "Tea, Green": (("Drinks", "Hot > cold", 3),)}),
)
CALIBRATION = Calibration(threshold=0.8, category_threshold=0.7)
ADDED = ["predicted_type", "confidence", "decision", "level", "top_k", "path", "sure_path", "model"]


@dataclass
class FakeScorer:
    """Scores by the first word: 'tea ...' is tea, 'odd ...' is odd, all else shampoo; 'unsure' in it: barely."""

    batches: list[list[str]] = field(default_factory=list)
    fail_on: str | None = None

    def log_probs(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.batches.append(list(texts))
        if self.fail_on in texts:
            raise RuntimeError("the device is gone")
        rows = np.empty((len(texts), len(LABELS)), np.float32)
        for row, text in zip(rows, texts, strict=True):
            best = {"tea": 2, "odd": 0}.get(text.split()[0].casefold(), 1)
            rest = [index for index in range(3) if index != best]
            row[best], row[rest] = (0.4, [0.35, 0.25]) if "unsure" in text else (0.9, [0.07, 0.03])
        return np.log(rows)

    @property
    def scored(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


@dataclass
class Job:
    """A prediction job in its own folder with a fake classifier."""

    folder: Path
    scorer: FakeScorer = field(default_factory=FakeScorer)

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def predict(self, source: Path, out: str | Path = "out.csv", **options: Any) -> PredictionSummary:
        roles = options.pop("text_columns", ("product",))
        classifier = Classifier("fake", LABELS, self.scorer, CALIBRATION, roles)
        return predict(Path("no-run"), source, self.folder / out, classifier=classifier, **options)

    def rows(self, name: str = "out.csv") -> list[dict[str, str]]:
        text = io.StringIO((self.folder / name).read_bytes().decode(), newline="")
        return list(csv.DictReader(text, delimiter="\t" if name.endswith(".tsv") else ","))


CATALOGUE = (
    "sku,product,price\r\n"
    'a1,"Tea loose, 1 kg",3\r\n'
    "a2,Hair wash,4\r\n"
    "a3,tea unsure,5\r\n"
    "a4,  Hair   wash ,6\r\n"
    "a5,=1+1,-7\r\n"
    "a6,odd one,8\r\n"
)
BAD_ROWS = "product,n\r\nTea a,1\r\n,2\r\nSoap b,3,too,many\r\n \u200b,4\r\nSoap c,5\r\n"

RECORDS = [{"product": "Tea a", "n": "1"}, {"product": "Soap b", "n": "2"}]


def _as_parquet() -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table({"product": ["Tea a", "Soap b"], "n": [1, 2]}), sink)
    return sink.getvalue()


def _as_xlsx() -> bytes:
    book = openpyxl.Workbook()
    for row in (["product", "n"], ["Tea a", "1"], ["Soap b", "2"]):
        book.active.append(row)  # type: ignore[union-attr]
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


INPUTS: dict[str, Callable[[], bytes]] = {
    "in.csv": lambda: b"\xef\xbb\xbfproduct,n\nTea a,1\nSoap b,2\n",
    "in.tsv": lambda: b"product\tn\nTea a\t1\nSoap b\t2\n",
    "in.jsonl": lambda: "\n".join(map(json.dumps, RECORDS)).encode(),
    "in.csv.gz": lambda: gzip.compress(b"product,n\r\nTea a,1\r\nSoap b,2\r\n"),
    "in.jsonl.gz": lambda: gzip.compress("\n".join(map(json.dumps, RECORDS)).encode()),
    "in.parquet": _as_parquet,
    "in.xlsx": _as_xlsx,
}
