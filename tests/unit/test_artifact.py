from __future__ import annotations

import subprocess

import pytest

from shelfwise.artifact import source_commit


@pytest.fixture
def checkout(tmp_path):
    def git(*words):
        author = ["-c", "user.name=x", "-c", "user.email=x@x.invalid"]
        finished = subprocess.run(["git", *author, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return finished.stdout.strip()

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "first")
    package = tmp_path / "src" / "shelfwise"
    package.mkdir(parents=True)
    return git, package


def test_a_run_knows_the_commit_of_the_checkout_it_came_from(checkout):
    git, package = checkout
    expected = git("rev-parse", "HEAD")
    assert source_commit(package) == expected
    git("pack-refs", "--all")
    assert source_commit(package) == expected
    git("checkout", "-q", "--detach")
    assert source_commit(package) == expected


def test_an_installed_package_has_no_commit(tmp_path):
    assert source_commit(tmp_path / "site-packages" / "shelfwise") is None
