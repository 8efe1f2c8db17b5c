"""Make any text safe to show in a terminal; every output of model text, file names and messages goes through here.

Markup is not this module's business: callers hand the result to rich as `Text`, which interprets none.
"""

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 controls except tab and newline, DEL, C1 controls
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # controls of writing direction and their deprecated kin
    "\u2028\u2029"  # line and paragraph separators, which would forge the start of a line
    "\ud800-\udfff]"  # lone surrogates, which no terminal's encoding can carry
)


def display_text(text: str) -> str:
    r"""`text` with everything that could steer a terminal written out, such as `\x1b` or `\u202e`.

    Tab, newline and all printable characters stay as they are, so that ordinary text is returned unchanged. The result
    can always be encoded as UTF-8.
    """
    return _UNSAFE.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
