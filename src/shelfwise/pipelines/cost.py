"""What a million products take: time as it was measured, and money where the price of an hour is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shelfwise.errors import InputError, did_you_mean
from shelfwise.pipelines.evaluation import Standing

MILLION = 1_000_000
MAX_PRICE = 1_000_000.0
_OPTION = "--price-per-hour"


@dataclass(frozen=True, slots=True)
class Cost:
    """Answering a million products on the machine that evaluated."""

    hours_per_million: float  # without loading; names that occur twice among the evaluated rows were answered once
    price_per_hour: float | None  # in whatever money it was told
    money_per_million: float | None


@dataclass(frozen=True, slots=True)
class Prices:
    """What an hour of each classifier's machine costs. They have no currency."""

    every: float | None = None  # of the classifiers that have no price of their own
    own: Mapping[str, float] = field(default_factory=dict)  # by title

    @classmethod
    def parse(cls, words: Sequence[str]) -> Prices:
        """Read ``2.50``, the price for all, and ``RUN=2.50``, for one.

        Raises:
            InputError: a word is no price, or there are two for the same.
        """
        prices: dict[str, float] = {}
        for word in words:
            title, _, number = word.rpartition("=")
            if title in prices:
                raise InputError(f"{_OPTION} {word}: {repr(title) if title else 'all'} had a price before.")
            prices[title] = _price(number, word)
        return cls(prices.pop("", None), prices)

    def require_known(self, titles: Iterable[str]) -> None:
        """Refuse prices of what is not compared.

        Raises:
            InputError: a price names no classifier.
        """
        known = list(dict.fromkeys(titles))
        for title in self.own:
            if title not in known:
                raise InputError(
                    f"{_OPTION} {title}={self.own[title]:g}: no classifier here goes by '{title}'."
                    f"{did_you_mean(title, known)} They are: {', '.join(known)}"
                )

    def cost(self, title: str, standing: Standing) -> Cost | None:
        """What a million products take a classifier; None where its time is not known."""
        if standing.seconds is None or not standing.scores.n:
            return None
        hours = standing.seconds / standing.scores.n * MILLION / 3600
        shared = self.own.get(standing.kind, self.every) if standing.kind == "baseline" else self.every
        price = self.own.get(title, shared)
        return Cost(hours, price, None if price is None else hours * price)


def _price(number: str, word: str) -> float:
    try:
        price = float(number)
    except ValueError:
        price = math.nan
    if not 0 <= price <= MAX_PRICE:  # as no comparison with nan holds, this refuses it too
        raise InputError(
            f"{_OPTION} {word}: '{number}' is no price. Give a number from 0 to {MAX_PRICE:,.0f}, as in 2.50, or one "
            "for a single run, as in baseline=0.10."
        )
    return price


def hours(number: float) -> str:
    """Hours as a reader would say them: ``3.5 h``, ``12 min``, ``40 s``."""
    if number >= 1:
        return f"{number:,.1f} h" if number < 100 else f"{number:,.0f} h"
    return f"{60 * number:.0f} min" if 60 * number >= 1.5 else f"{3600 * number:.0f} s"


def money(amount: float) -> str:
    """An amount without a currency: ``2.50``, ``0.0031`` where two decimals would hide it."""
    return f"{amount:,.2f}" if amount >= 0.1 or amount == 0 else f"{amount:.2g}"


def told(cost: Cost) -> str:
    """A cost in words: ``3.5 h (8.75 at 2.50 an hour)``."""
    time = hours(cost.hours_per_million)
    if cost.price_per_hour is None or cost.money_per_million is None:
        return time
    return f"{time} ({money(cost.money_per_million)} at {money(cost.price_per_hour)} an hour)"
