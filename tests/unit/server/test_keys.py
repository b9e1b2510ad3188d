"""API keys."""

from __future__ import annotations

import base64
import hashlib

import pytest

from shelfwise.errors import InputError
from shelfwise.server.keys import VARIABLE, Keys


def line(name: str, key: str, *more: str) -> str:
    return " ".join((name, hashlib.sha256(key.encode()).hexdigest(), *more))


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# who may ask\n\n{line('shop', 'open sesame')}\n{line('ops', 'geheim-ß', 'admin')}  # on call\n")
    return Keys.load(path, {})


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer open sesame"},
        {"authorization": "bearer open sesame"},
        {"x-api-key": "open sesame"},
        {"authorization": "Basic " + base64.b64encode(b"anybody:open sesame").decode()},
    ],
)
def test_a_key_is_taken_in_each_of_the_usual_places(keys, headers):
    assert keys.holder(headers).name == "shop"
    assert not keys.holder(headers).admin


def test_a_key_may_be_an_admins(keys):
    assert keys.holder({"x-api-key": "geheim-ß"}).admin


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Bearer open sesam"},
        {"authorization": "Digest open sesame"},
        {"authorization": "Basic %%%"},
        {"authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()},
        {"x-api-key": hashlib.sha256(b"open sesame").hexdigest()},
        {"x-api-key": "x" * 100_000},
        {"x-api-key": ""},
    ],
)
def test_all_else_is_no_key(keys, headers):
    assert keys.holder(headers) is None


def test_without_a_file_the_variable_is_read():
    assert Keys.load(None, {VARIABLE: line("a", "1") + ";" + line("b", "2")}).holder({"x-api-key": "2"}).name == "b"
    assert not Keys.load(None, {})


@pytest.mark.parametrize("text", ["", "# none\n"])
def test_a_file_without_keys_would_leave_the_door_open_and_is_an_error(tmp_path, text):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(InputError, match="no API key"):
        Keys.load(tmp_path / "keys", {})


@pytest.mark.parametrize("text", ["shop plain-text-secret", "shop", "a b c d", f"shop {'0' * 64} root"])
def test_a_wrong_line_is_told_by_its_number_and_not_shown(tmp_path, text):
    (tmp_path / "keys").write_text(f"\n{text}\n")
    with pytest.raises(InputError, match=":2: a line is NAME SHA256") as told:
        Keys.load(tmp_path / "keys", {})
    assert "plain-text-secret" not in str(told.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        Keys.load(tmp_path / "none", {})
