"""Texts of other people in Markdown."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import one_line
from pipeline.parquet.markdown import ADDRESS, escape
from synthchex_75k import printable

PIECES = ["<!-- END use -->", "```", "**", "_a_", "[a](b)", "![x](y)", "<b>", "&lt;", "~~", "|", "# ", "- ", "1. "]
PIECES += ["---", "===", "\\", "https://a.b/c_d*", "\n", "    ", "> ", "$$", "\u2028", "\x00", "USER/NAME"]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=10).map("".join)
LINK = re.compile(r"((?<!\\)(?:\\\\)*)<(https?://[^<>\s]+)>")  # after escaped backslashes or none


@given(TEXTS)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    escaped = escape(text)
    assert escaped.isprintable(), "one line"
    assert [link for _, link in LINK.findall(escaped)] == ADDRESS.findall(printable(one_line(text)))
    unlinked = LINK.sub(
        lambda match: match[1] + match[2].translate({ord(char): f"\\{char}" for char in "\\`*_[]<>#|!&~$"}), escaped
    )
    assert not re.search(r"(?<!\\)(\\\\)*[`*_\[\]<>#|!&~$]", unlinked), "no markup"
    assert not re.match(r"[-+]( |$)|--|=|\d+[.)]( |$)", escaped), "no list, no heading"
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", unlinked) == printable(one_line(text))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("", ""),
        ("Sana (0.6B), 512x512", "Sana (0.6B), 512x512"),
        ("a\n<!-- END use -->\nb", r"a \<\!-- END use --\> b"),
        ("- a", r"\- a"),
        ("1) a", r"1\) a"),
        ("1.0.0", "1.0.0"),
        ("See (https://a.b/c_d).", "See (<https://a.b/c_d>)."),
    ],
)
def test_examples(text: str, escaped: str) -> None:
    assert escape(text) == escaped
