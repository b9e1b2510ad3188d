"""API keys: who may ask. Only hashes are kept.

A file, or the variable SHELFWISE_API_KEYS, holds a line (in the variable also a part between semicolons) a key:

    NAME SHA256 [admin]

NAME is for the log; SHA256 is of the key itself, 64 hex digits; `admin` keys may also reload models. A client sends the
key as `Authorization: Bearer KEY`, as `X-API-Key: KEY`, or, as browsers do when they ask for a name and a password, as
the password of HTTP Basic.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shelfwise.errors import InputError

VARIABLE = "SHELFWISE_API_KEYS"
MAX_KEYS = 1_000
MAX_KEY_LENGTH = 512  # characters of a key that is hashed at all
_LINE = re.compile(r"(?P<name>[\w.@-]{1,100})\s+(?P<sha256>[0-9a-fA-F]{64})(?P<admin>\s+admin)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """One that is known."""

    name: str
    sha256: str  # 64 lower-case hex digits
    admin: bool


@dataclass(frozen=True, slots=True)
class Keys:
    """All that are known; none: everybody may ask, and nobody may reload over HTTP."""

    known: tuple[Key, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.known)

    def holder(self, headers: Mapping[str, str]) -> Key | None:
        """Whose key a request carries. As long for a wrong key as for a right one: every hash is compared."""
        sent = _sent(headers)
        if sent is None or len(sent) > MAX_KEY_LENGTH:
            return None
        digest = hashlib.sha256(sent.encode()).hexdigest()
        found = None
        for key in self.known:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found

    @classmethod
    def load(cls, path: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
        """Read the file, or without one the variable.

        Raises:
            InputError: it can't be read, or a line of it is none.
        """
        if path is None:
            return cls._parsed(environment.get(VARIABLE, "").replace(";", "\n"), f"${VARIABLE}")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: the file of API keys can't be read ({error}).") from error
        keys = cls._parsed(text, str(path))
        if not keys:
            raise InputError(f"{path}: no API key in this file. A line is NAME SHA256 or NAME SHA256 admin.")
        return keys

    @classmethod
    def _parsed(cls, text: str, source: str) -> Keys:
        known = []
        for number, line in enumerate(text.splitlines(), 1):
            settled = line.partition("#")[0].strip()
            if not settled:
                continue
            match = _LINE.fullmatch(settled)
            if match is None:  # the line is not shown: it may hold a key in plain text
                raise InputError(
                    f"{source}:{number}: a line is NAME SHA256 or NAME SHA256 admin; SHA256 is 64 hex digits."
                )
            known.append(Key(match["name"], match["sha256"].lower(), match["admin"] is not None))
        if len(known) > MAX_KEYS:
            raise InputError(f"{source}: more than {MAX_KEYS:,} API keys.")
        return cls(tuple(known))


def _sent(headers: Mapping[str, str]) -> str | None:
    if "x-api-key" in headers:
        return headers["x-api-key"]
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None
