"""Times as people say them."""

from __future__ import annotations

import time


def ago(at_s: float, now_s: float | None = None) -> str:
    """A moment in the past, seconds since 1970: "just now", "4 minutes ago", "on 3 May"."""
    passed = (time.time() if now_s is None else now_s) - at_s
    if passed < 45:
        return "just now"
    for size, most, word in ((60, 60, "minute"), (3600, 36, "hour"), (86400, 14, "day")):
        number = max(1, round(passed / size))
        if number < most:
            return f"{number} {word}{'s' if number != 1 else ''} ago"
    day = time.gmtime(at_s)
    return f"on {day.tm_mday} {time.strftime('%B %Y', day)}"
