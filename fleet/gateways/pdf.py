"""Invoices on paper: PDF, drawn with fpdf2 in Roboto, whose letters are Latin, Greek and Cyrillic.

The same sheet gives the same bytes, always: nothing of it comes from the clock or from chance. The font is embedded, in the
few letters that are used, so that the paper looks the same everywhere. What the font has no letter for becomes `?`.
"""

import logging
import unicodedata
from functools import cache
from pathlib import Path

import font_roboto
from fontTools.ttLib import TTFont
from fpdf import FPDF
from fpdf.enums import XPos, YPos

from fleet.rules.invoice_sheets import Sheet

FONT = Path(font_roboto.__file__).parent / "files" / "Roboto-Regular.ttf"
_FAMILY = "Roboto"
_MARGIN_MM, _LINE_MM = 20.0, 5.5
_TITLE_PT, _TEXT_PT, _SMALL_PT = 18, 10, 9
_WIDTHS_MM = (70, 18, 30, 20, 32)
_BREATHING_SPACE_MM = 8.0

# It names the letters that a font has not: pieces of people's names.
logging.getLogger("fpdf").setLevel(logging.ERROR)
logging.getLogger("fontTools").setLevel(logging.ERROR)


def render(sheet: Sheet) -> bytes:
    """The sheet as PDF."""
    paper = FPDF(format="A4")
    paper.set_margin(_MARGIN_MM)
    paper.set_auto_page_break(auto=True, margin=_MARGIN_MM)
    paper.set_creation_date(sheet.issued_at)
    paper.set_title(_drawable(sheet.title))
    paper.set_lang(sheet.language)
    paper.add_font(_FAMILY, fname=FONT)
    paper.add_page()
    _head(paper, sheet)
    _table(paper, sheet)
    _totals(paper, sheet)
    return bytes(paper.output())


def _head(paper: FPDF, sheet: Sheet) -> None:
    paper.set_font(_FAMILY, size=_SMALL_PT)
    for line in sheet.seller:
        _line(paper, line, align="R")
    paper.ln(_BREATHING_SPACE_MM)
    paper.set_font(_FAMILY, size=_TEXT_PT)
    for line in sheet.buyer:
        _line(paper, line)
    paper.ln(_BREATHING_SPACE_MM)
    paper.set_font(_FAMILY, size=_TITLE_PT)
    _line(paper, sheet.title, height_mm=2 * _LINE_MM)
    paper.set_font(_FAMILY, size=_TEXT_PT)
    for label, value in sheet.facts:
        _line(paper, f"{label}: {value}")
    paper.ln(_BREATHING_SPACE_MM)


def _line(paper: FPDF, text: str, *, align: str = "L", height_mm: float = _LINE_MM) -> None:
    """A line, or as many as the text needs between the margins."""
    paper.multi_cell(0, height_mm, _drawable(text), align=align, new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _table(paper: FPDF, sheet: Sheet) -> None:
    paper.set_font(_FAMILY, size=_SMALL_PT)
    aligned = ("LEFT", *["RIGHT"] * (len(sheet.columns) - 1))
    with paper.table(
        col_widths=_WIDTHS_MM,
        text_align=aligned,
        line_height=_LINE_MM,
        borders_layout="HORIZONTAL_LINES",
        first_row_as_headings=False,
        repeat_headings=0,
    ) as table:
        for cells in (sheet.columns, *sheet.lines):
            row = table.row()
            for cell in cells:
                row.cell(_drawable(cell))
    paper.ln(_BREATHING_SPACE_MM / 2)


def _totals(paper: FPDF, sheet: Sheet) -> None:
    paper.set_font(_FAMILY, size=_TEXT_PT)
    for label, value in sheet.totals:
        _line(paper, f"{label}:   {value}", align="R")


def _drawable(text: str) -> str:
    """The text in letters that the font has. An accent that it cannot draw is left out rather than the whole letter."""
    return "".join(_drawn(char) for char in unicodedata.normalize("NFC", text))


def _drawn(char: str) -> str:
    if char.isspace():
        return char if char == "\u00a0" else " "
    if not char.isprintable():
        return ""
    return char if ord(char) in _letters() else _plain(char)


def _plain(char: str) -> str:
    base = unicodedata.normalize("NFKD", char)[0]
    return base if ord(base) in _letters() else "?"


@cache
def _letters() -> frozenset[int]:
    with TTFont(FONT, lazy=True) as font:
        return frozenset(font.getBestCmap())
