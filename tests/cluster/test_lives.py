"""The judge of the stories: that it finds an instance that lived beside another, and nothing where none did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cluster.lives import lives, overlaps

if TYPE_CHECKING:
    from pathlib import Path

FIRST = """start a 10.0 1010.0 db b1 7
beat a 10.1 1010.1 main
beat a 10.1 1010.1 helper
end a 10.2 1010.2 exit 0
"""
SECOND = """start b 10.4 1010.4 db b1 9
beat b 10.5 1010.5 main
"""


def test_one_after_the_other(tmp_path: Path) -> None:
    """Two instances that followed each other are two lives, and nothing is wrong with that."""
    book = tmp_path / "db.book"
    book.write_text(FIRST + SECOND)
    assert [one.instance for one in lives(book)] == ["a", "b"]
    assert overlaps(tmp_path) == []


def test_a_helper_that_outlives_its_application_is_found(tmp_path: Path) -> None:
    """A helper of the first that still lived when the second began is told, with both and when."""
    (tmp_path / "db.book").write_text(FIRST + SECOND + "beat a 10.6 1010.6 helper\n")
    assert overlaps(tmp_path) == ["db: a lived until 10.600, b from 10.400"]


def test_other_applications_do_not_count(tmp_path: Path) -> None:
    """Two applications may live at once."""
    (tmp_path / "db.book").write_text(FIRST)
    (tmp_path / "web.book").write_text(FIRST.replace(" a ", " c "))
    assert overlaps(tmp_path) == []
