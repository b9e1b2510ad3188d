"""What the leakage gate found before training, kept in the run folder: looking takes longer than to evaluate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from shelfwise import artifact
from shelfwise.data.catalogue import Catalogue
from shelfwise.data.leakage import Leakage
from shelfwise.data.split import Splits
from shelfwise.errors import COPY_AGAIN, CorruptArtifactError

FORMAT = 1
MAX_BYTES = 16 << 20


def document(leakage: Leakage, splits: Splits, text_columns: Sequence[str]) -> dict[str, object]:
    """What `leakage.json` holds: the findings, and what they were looked for in."""
    return {"format": FORMAT, **_looked_at(splits, text_columns), "findings": asdict(leakage)["findings"]}


def earlier(run: Path, catalogue: Catalogue, splits: Splits, text_columns: Sequence[str]) -> Leakage | None:
    """What was found before training, if it was looked for in this very catalogue, split and columns.

    Returns:
        None where the run folder has no record, or one of something else: look again.

    Raises:
        CorruptArtifactError: the record can't be read.
    """
    from pydantic import TypeAdapter

    path = run / artifact.LEAKAGE
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES:,} bytes")
        stored = json.loads(path.read_text(encoding="utf-8"))
        found = TypeAdapter(Leakage).validate_python({"findings": stored.pop("findings")})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifactError(f"{path}: not a readable record of leakage. {COPY_AGAIN}") from error
    same = stored == {"format": FORMAT, **_looked_at(splits, text_columns)}
    return found if same and catalogue.fingerprint == splits.fingerprint else None


def _looked_at(splits: Splits, text_columns: Sequence[str]) -> dict[str, object]:
    return {
        "fingerprint": splits.fingerprint,
        "parts": [len(splits.train), len(splits.validation), len(splits.test)],
        "strategy": splits.strategy,
        "seed": splits.seed,
        "text_columns": list(text_columns),
    }
