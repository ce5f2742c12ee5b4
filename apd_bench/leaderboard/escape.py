"""Names from records made safe for each format: no record can break a table or run anything in a reader's program."""

import re

from apd_bench.core.text import LONGEST, plain

_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$!])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four: the wide forms
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def markdown_text(text: object, longest: int = LONGEST) -> str:
    """Text for a Markdown table: pipes and emphasis are escaped, HTML is inert, links are not made.

    An underscore inside a word is literal in Markdown and is left alone, which keeps names readable.
    """
    line = plain(text, longest)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _MARKDOWN.sub(r"\\\1", line)
    line = re.sub(r"(?<=[A-Za-z0-9])\\_(?=[A-Za-z0-9])", "_", line)
    return line.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def csv_text(text: object) -> str:
    """Text for a CSV field that no spreadsheet takes for a formula: such text gets a leading apostrophe."""
    line = plain(text, 200)
    return f"'{line}" if line.startswith(_FORMULA) else line


def latex_text(text: object, longest: int = LONGEST) -> str:
    """Text for a LaTeX table cell."""
    return "".join(_LATEX.get(sign, sign) for sign in plain(text, longest))
