"""What OpenAPI promises about names is what the rest of Shelfwise does with them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shelfwise.server.schemas import VISIBLE, ClassifyRequest
from shelfwise.text import normalise

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def is_taken(name: str) -> bool:
    try:
        ClassifyRequest.model_validate({"products": name})
    except ValidationError:
        return False
    return True


def test_every_character_is_visible_to_the_schema_exactly_if_something_of_it_is_left():
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            assert bool(re.search(VISIBLE, chr(code))) == bool(normalise(chr(code))), hex(code)


@given(TEXT)
def test_a_name_is_taken_exactly_if_something_of_it_is_left(name):
    assert is_taken(name) == bool(normalise(name))


@pytest.mark.parametrize("code", [0x20, 0x1C, 0x85, 0xA0, 0x200B, 0x2028, 0x3000, 0xFEFF, 0x41, 0x1F600])
def test_pydantic_reads_the_pattern_as_python_does(code):
    assert is_taken(chr(code)) == bool(normalise(chr(code)))


def test_half_of_a_surrogate_pair_is_no_text():
    assert not is_taken("\ud800 Rice")
