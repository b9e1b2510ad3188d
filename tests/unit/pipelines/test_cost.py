from __future__ import annotations

from dataclasses import replace

import pytest

from shelfwise.errors import InputError
from shelfwise.metrics import Interval, Scores
from shelfwise.pipelines.cost import Cost, Prices, hours, money, told
from shelfwise.pipelines.evaluation import Standing

SCORES = Scores(5000, 0.8, 0.7, 0.8, 0.9, 1.0, 0.02)
STANDING = Standing("model", "tiny", SCORES, Interval(0.78, 0.82), None, None, None, None, seconds=9.0)


def test_a_million_products_take_as_long_as_was_measured() -> None:
    assert Prices().cost("tiny", STANDING) == Cost(pytest.approx(0.5), None, None)
    assert Prices().cost("tiny", replace(STANDING, seconds=None)) is None


def test_the_price_of_a_run_goes_before_that_of_all() -> None:
    prices = Prices.parse(["2.5", "baseline=0.10", "lr=2e-4/run=4"])
    assert prices.cost("tiny", STANDING) == Cost(pytest.approx(0.5), 2.5, pytest.approx(1.25))
    assert prices.cost("baseline", STANDING).price_per_hour == 0.10
    assert prices.cost("lr=2e-4/run", STANDING).price_per_hour == 4
    alone = Prices.parse(["baseline=0.10"])
    assert alone.cost("tiny", STANDING).money_per_million is None


@pytest.mark.parametrize("word", ["", "free", "-1", "nan", "inf", "baseline=", "baseline=1e9", "1,5"])
def test_what_is_no_price_is_refused(word: str) -> None:
    with pytest.raises(InputError, match=r"--price-per-hour .*is no price\. Give a number from 0 to 1,000,000"):
        Prices.parse([word])


def test_two_prices_for_the_same_are_refused() -> None:
    with pytest.raises(InputError, match="all had a price before"):
        Prices.parse(["1", "2"])
    with pytest.raises(InputError, match="'tiny' had a price before"):
        Prices.parse(["tiny=1", "tiny=1"])


def test_a_price_of_nothing_that_is_compared_names_what_is() -> None:
    prices = Prices.parse(["basline=0.1"])
    with pytest.raises(InputError, match=r"goes by 'basline'\. Did you mean 'baseline'\? They are: baseline, tiny"):
        prices.require_known(["baseline", "tiny"])


def test_costs_are_told_in_words() -> None:
    assert told(Cost(3.5, 2.5, 8.75)) == "3.5 h (8.75 at 2.50 an hour)"
    assert told(Cost(0.2, None, None)) == "12 min"
    assert [hours(number) for number in (0.01, 0.5, 99.94, 1234)] == ["36 s", "30 min", "99.9 h", "1,234 h"]
    assert [money(amount) for amount in (0, 0.0031, 0.25, 1234.5)] == ["0.00", "0.0031", "0.25", "1,234.50"]
