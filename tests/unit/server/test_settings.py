"""What a service is told to do."""

from __future__ import annotations

import pytest

from shelfwise.errors import InputError
from shelfwise.server.settings import Batching, Limits, Settings, named_runs


def test_a_run_goes_by_its_folders_name_or_by_one_of_its_own(tmp_path):
    odd = tmp_path / "a=b"
    odd.mkdir()
    runs = named_runs([str(tmp_path / "shelves"), f"best={tmp_path / 'shelves'}", str(odd)])
    assert list(runs) == ["shelves", "best", "a=b"]
    assert runs["shelves"] == runs["best"]


@pytest.mark.parametrize("runs", [["x/a", "y/a"], ["a=1", "a=2"]])
def test_two_runs_of_one_name_are_refused(runs):
    with pytest.raises(InputError, match="Two runs are called 'a'"):
        named_runs(runs)


@pytest.mark.parametrize("name", ["=x", "\n=x", "n" * 201 + "=x"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(InputError, match="printable"):
        named_runs([name])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"runs": ()}, "at least one"),
        ({"port": 70_000}, "65535"),
        ({"cors_origins": ("*",)}, "no origin"),
        ({"cors_origins": ("https://shop.example/",)}, "no origin"),
        ({"batching": Batching(max_queue_characters=10), "limits": Limits(max_characters=11)}, "raise"),
    ],
)
def test_settings_that_can_not_work_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Settings(**{"runs": ("run",), **wrong})
