"""Text from outside cannot forge a log line."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cmapp.core.text import fitted, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("web server", "web server", id="plain"),
        pytest.param("Müller 漢字 ✓", "Müller 漢字 ✓", id="letters of all kinds"),
        pytest.param("a\nb", r"a\nb", id="newline"),
        pytest.param("a\r\tb", r"a\r\tb", id="carriage return and tab"),
        pytest.param("\x1b[31m", r"\x1b[31m", id="terminal escape"),
        pytest.param("\x9b31m", r"\x9b31m", id="terminal escape of one byte"),
        pytest.param("\0\x7f", r"\x00\x7f", id="NUL and DEL"),
        pytest.param("abc\u202ecba", r"abc\u202ecba", id="right to left override"),
        pytest.param("\u2028", r"\u2028", id="line separator"),
        pytest.param("\ufeff", r"\ufeff", id="BOM"),
        pytest.param("\U000e0001", r"\U000e0001", id="tag beyond 16 bits"),
        pytest.param("\udc80", r"\udc80", id="lone surrogate"),
        pytest.param(r"a\nb", r"a\nb", id="what was written out already"),
    ],
)
def test_what_would_act_is_written_out(text: str, shown: str) -> None:
    """What a terminal or a log would act on is written out, all else is left as it is."""
    assert printable(text) == shown


@given(st.text(st.characters()) | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
@example("\udfff\x85")
def test_any_text_becomes_one_printable_line(text: str) -> None:
    """Whatever comes in becomes one line that any log can hold, and that a second pass leaves alone."""
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown
    assert printable(shown) == shown


@given(st.text(st.characters()), st.integers(3, 40))
@example("\u20ac" * 20, 10)
@example("\U0001f40d" * 20, 11)
def test_a_line_that_is_cut_is_whole_to_its_end(text: str, most: int) -> None:
    """However it is cut, a line has its bound, is UTF-8 to its last byte, and says that it was cut."""
    line = fitted(text, most)
    shown = printable(text)
    assert len(line) <= most
    assert line.decode().isprintable()
    if len(shown.encode()) <= most:
        assert line == shown.encode()
    else:
        assert line.endswith(b"...")
        assert shown.startswith(line.decode()[:-3])
