"""The same product written as another shop would write it."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfwise.data._perturb_words import ABBREVIATIONS, SPELLINGS, TRANSLATIONS
from shelfwise.data.perturb import KINDS, Perturbation, perturb
from shelfwise.text import fold, normalise

words = st.sampled_from(
    [
        "Amber",
        "Chocolate",
        "Aloo",
        "Turmeric",
        "powder",
        "500 g",
        "(Pack of 2)",
        "1.5 L",
        "&",
        "-",
        "ghee",
        "No.2",
        "தேன்",
    ]
)
names = (
    st.one_of(st.lists(words, min_size=1, max_size=7).map(" ".join), st.text(max_size=60)).map(normalise).filter(bool)
)
kinds = st.sampled_from(KINDS)


def test_every_kind_is_listed_once() -> None:
    assert sorted(KINDS) == sorted(get_args(Perturbation))
    assert len(KINDS) == 8


@given(names, kinds, st.integers(0, 2**32), st.sampled_from(["", "Amber", "amber", "Chocolate"]))
@settings(max_examples=400)
def test_a_changed_name_is_normalised_differs_and_still_names_something(
    name: str, kind: Perturbation, seed: int, brand: str
) -> None:
    changed = perturb(name, kind, seed, brand)
    assert changed == perturb(name, kind, seed, brand)
    if changed is not None:
        assert changed == normalise(changed)
        assert changed != name
        assert any(map(str.isalnum, changed))


@given(names, st.integers(0, 100))
@settings(max_examples=150)
def test_reordering_keeps_every_word(name: str, seed: int) -> None:
    changed = perturb(name, "reordered", seed)
    if changed is None:
        assert len(set(name.split(" "))) < 2 or not any(map(str.isalnum, name))
    else:
        assert Counter(changed.split(" ")) == Counter(name.split(" "))


@given(names, st.integers(0, 100))
@settings(max_examples=150)
def test_a_typing_error_is_one_slip(name: str, seed: int) -> None:
    changed = perturb(name, "typo", seed)
    if changed is not None:
        assert abs(len(changed) - len(name)) <= 1
        start = next((i for i, (a, b) in enumerate(zip(name, changed, strict=False)) if a != b), len(changed))
        assert changed[start + 2 :] in name  # what follows the slip is as it was


@given(st.text("abcdefghij -,.KLMNOP", min_size=1, max_size=40).map(normalise).filter(bool), st.integers(0, 100))
@settings(max_examples=150)
def test_another_case_is_the_same_name_and_more_punctuation_keeps_the_letters(name: str, seed: int) -> None:
    cased, marked = perturb(name, "case", seed), perturb(name, "punctuation", seed)
    assert cased is None or fold(cased) == fold(name)
    if marked is not None:
        assert list(filter(str.isalnum, marked)) == list(filter(str.isalnum, name))


@pytest.mark.parametrize(
    ("name", "kind", "brand", "expected"),
    [
        ("Amber Turmeric Powder, 500 g (Pack of 2)", "dropped_brand", "Amber", "Turmeric Powder, 500 g (Pack of 2)"),
        ("AMBER's Honey", "dropped_brand", "Amber", "Honey"),
        ("Ambergris Candle", "dropped_brand", "Amber", None),
        ("Honey", "dropped_brand", "", None),
        ("Amber", "dropped_brand", "Amber", None),  # nothing would be left
        ("Honey (C++)", "dropped_brand", "C++", "Honey"),
        ("Turmeric Powder, 500 g (Pack of 2)", "dropped_size", "", "Turmeric Powder"),
        ("Soft Drink 2 x 1.25 L", "dropped_size", "", "Soft Drink"),
        ("Basmati Rice 1kg", "dropped_size", "", "Basmati Rice"),
        ("Vitamin B12 Gummies", "dropped_size", "", None),
        ("1 kg", "dropped_size", "", None),
        ("Chocolate Powder Pack", "abbreviation", "", "Choc Pwd Pk"),
        ("CHOCOLATE cream", "abbreviation", "", "CHOC crm"),
        ("Backpack", "abbreviation", "", None),
        ("Aloo Bhujia", "hinglish", "", "Alu Bhujiya"),
        ("alu bhujiya", "hinglish", "", "aloo bhujia"),
        ("Turmeric Powder", "hinglish", "", "Haldi Powder"),
        ("Green Tea", "hinglish", "", None),
        ("1 2 3", "typo", "", None),
        ("தேன்", "case", "", None),
    ],
)
def test_words_are_dropped_and_exchanged_as_written_here(
    name: str, kind: Perturbation, brand: str, expected: str | None
) -> None:
    assert perturb(name, kind, 7, brand) == expected


def test_other_seeds_change_a_name_in_other_ways() -> None:
    assert len({perturb("Roasted Almond Chocolate Bar", "typo", seed) for seed in range(30)}) > 10


def test_no_exchanged_word_is_exchanged_into_itself_or_by_two_tables() -> None:
    assert len(ABBREVIATIONS) >= 40
    assert len(SPELLINGS) + len(TRANSLATIONS) >= 40
    spelt = [word for pair in SPELLINGS for word in pair]
    assert len(spelt) == len(set(spelt))
    assert not set(spelt) & set(TRANSLATIONS)
    assert all(key == key.lower() != value for key, value in {**ABBREVIATIONS, **TRANSLATIONS}.items())
