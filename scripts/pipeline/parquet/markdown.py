"""Texts of other people, such as names and prompts, in Markdown: shown as they are, never read as markup."""

from __future__ import annotations

import re

from pipeline.errors import one_line
from synthchex_75k import printable

ADDRESS = re.compile(r'(https?://[^\s<>"\\^`{|}()\[\]]*[^\s<>"\\^`{|}()\[\].,;:!?\'*_~])')
SPECIAL = re.compile(r"([\\`*_\[\]<>#|!&~$])")
AT_START = re.compile(r"([-+](?=\s|$)|--|=)|(\d+)([.)](?=\s|$))")  # of a list, or the underline of a heading


def escape(text: str) -> str:
    r"""Returns a text in one line of Markdown that shows it; web addresses become links.

    Example:
        >>> print(escape("a *b* <!-- END use -->"))
        a \*b\* \<\!-- END use --\>
        >>> print(escape("1. see https://arxiv.org/abs/1901.07031."))
        1\. see <https://arxiv.org/abs/1901.07031>.
    """
    parts = ADDRESS.split(printable(one_line(text)))
    escaped = [f"<{part}>" if number % 2 else SPECIAL.sub(r"\\\1", part) for number, part in enumerate(parts)]
    line = "".join(escaped)
    start = AT_START.match(line)
    if not start:
        return line
    return f"\\{line}" if start[1] else f"{start[2]}\\{line[len(start[2]) :]}"
