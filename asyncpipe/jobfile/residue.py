"""What spreadsheets and programs leave in a cell in place of what was meant: pure."""

from __future__ import annotations

import re

_ERRORS = frozenset(
    {
        *("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#ERROR!"),
        *("#SPILL!", "#CALC!", "#FIELD!", "#BLOCKED!", "#UNKNOWN!", "#CONNECT!", "#BUSY!"),
        *("#GETTING_DATA", "#EXTERNAL!", "#PYTHON!", "#TIMEOUT!", "#PLACEHOLDER!"),
        *("#N/D", "#NV", "#BEZUG!", "#WERT!", "#ZAHL!", "#VALEUR!", "#NOM?", "#NOMBRE?"),
        *("#VALOR!", "#NOME?", "#NÚM!", "#NUL!", "#NOMBRE!", "#ССЫЛКА!", "#ЗНАЧ!", "#Н/Д"),
    }
)

_NOTHING = frozenset(
    {
        *("nan", "NaN", "NAN", "null", "NULL", "Null", "None", "NaT", "<NA>", "N/A", "n/a", r"\N"),
        *("undefined", "[object Object]", "-nan", "1.#QNAN", "-1.#IND"),
    }
)

_ERROR = re.compile(r"#{3,}|Err:[0-9]{3}|#[A-Z]+/[0-9A-Z]+[!?]?")

_MANGLED = re.compile(r"-?[0-9](?:[.,][0-9]+)?E[+-][0-9]{2,3}")

_FORMULA = re.compile(r"=\s*(?:[-+@(0-9\"#]|[A-Za-z_.]+\(|\$?[A-Za-z]{1,3}\$?[0-9])")

_AS_TEXT = re.compile(r'="((?:[^"]|"")*)"|\'([0-9]+)')


def wrong_with(cell: str) -> str | None:
    """Why a cell's text is not what anybody meant, and what to do; None where it may be."""
    if cell in _NOTHING:
        return f"{cell} is what programs write for an empty cell: fill it in, or leave it empty"
    first = cell[:1]
    if first in ("#", "E") and (cell in _ERRORS or _ERROR.fullmatch(cell)):
        return f"{cell} is a spreadsheet's error: correct its formula, and save it again"
    if "E" in cell and _MANGLED.fullmatch(cell):
        return (
            f"{cell} is a number that a spreadsheet has shortened, its digits are gone: "
            "give the column the format Text or 0, and save it again"
        )
    if first == "=" and _FORMULA.match(cell):
        return f"{cell[:60]} is a formula, not what it comes to: save the table with its values"
    return None


def unwrapped(cell: str) -> str:
    """What is meant by ``="00123"`` and ``'00123``: text that a spreadsheet must not count with."""
    found = _AS_TEXT.fullmatch(cell)
    return (found[1] or found[2] or "").replace('""', '"') if found else cell
