"""What the leakage gate finds in the real catalogue (counts alone; no row of it stands here)."""

from pathlib import Path

import pytest

from shelfwise.config import SplitConfig, SplitStrategy
from shelfwise.data.catalogue import Catalogue, read_catalogue
from shelfwise.data.leakage import find_leakage
from shelfwise.data.split import make_splits

pytestmark = pytest.mark.bigbasket


@pytest.fixture(scope="module")
def catalogue(bigbasket: Path) -> Catalogue:
    return read_catalogue(bigbasket, text_columns=("brand", "product"), labels="required")


@pytest.mark.parametrize(
    ("strategy", "same", "near"),
    [("grouped", None, (745, 5_518)), ("random", (1_138, 5_510), (564, 4_372)), ("brand", (279, 5_512), (150, 5_233))],
)
def test_each_split_leaks_as_much_as_is_known(
    catalogue: Catalogue, strategy: SplitStrategy, same: tuple[int, int] | None, near: tuple[int, int]
) -> None:
    splits = make_splits(catalogue, SplitConfig(strategy=strategy))
    found = find_leakage(catalogue, splits, ("brand", "product"))
    counts = {(finding.kind, finding.where): (finding.count, finding.of) for finding in found.findings}
    assert counts.get(("same_product", "test")) == same
    # Cosines are sums in single precision: a pair or two may lie on either side of the threshold elsewhere.
    assert counts[("near_duplicate", "test")] == (pytest.approx(near[0], abs=3), near[1])
    assert counts[("type_in_text", "brand")] == (186, 27_554)
    assert not any(kind == "type_from_column" for kind, _ in counts)
    assert bool(found.problems) == (strategy == "random")
