from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelfwise.text import fold, normalise


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  Basmati   Rice ", "Basmati Rice"),
        ("Aloe\u00a0Vera\u2009Gel", "Aloe Vera Gel"),
        ("Zero\u200bWidth\ufeff", "ZeroWidth"),
        ("Cre\u0300me", "Crème"),
        ("two\r\nlines\tand a tab", "two lines and a tab"),
        ("bell\x07", "bell"),
        ("\u00a0\u200b ", ""),
        ("1½ × 2 — “quoted”", "1½ × 2 — “quoted”"),
    ],
)
def test_names_are_normalised_without_losing_what_is_visible(raw, clean):
    assert normalise(raw) == clean


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip()
    assert "  " not in once
    assert unicodedata.is_normalized("NFC", once)


@given(st.text())
def test_folding_is_stable_and_blind_to_case_and_spaces(text):
    assert fold(normalise(text)) == fold(text)
    assert fold(f"  {text}  ") == fold(text)


def test_spellings_of_one_name_fold_to_one():
    assert fold("ALOE\u00a0 Vera") == fold("aloe vera") == "aloe vera"
    assert fold("½ kg") == fold("½ KG")
