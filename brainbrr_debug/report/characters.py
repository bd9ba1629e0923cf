"""What a document may hold: some characters are in no XML and no UTF-8, escaped or not. Imports no torch."""

from __future__ import annotations

import re

_ILLEGAL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def legal(text: str) -> str:
    r"""`text` with every character that no document may hold written out, as "\u0000"."""
    return _ILLEGAL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
