"""Manual pages in roff (`man` and `mdoc` macros) to plain text.

Not a typesetter: fonts, indents and page furniture go; words, the lines of examples and the cells of tables stay. Macros that a
page defines itself are not run, and conditions are decided as for a terminal (`n`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_NAMED = {
    "aq": "'", "dq": '"', "lq": "“", "rq": "”", "oq": "‘", "cq": "’", "em": "—", "en": "–", "hy": "-", "mi": "-", "ha": "^", "ti": "~",
    "rs": "\\", "bu": "•", "co": "©", "rg": "®", "tm": "™", "de": "°", "mu": "×", "di": "÷", "+-": "±", "<=": "≤", ">=": "≥", "!=": "≠",
    "->": "→", "<-": "←", "ul": "_", "at": "@", "sh": "#", "Do": "$", "sl": "/", "ga": "`", "aa": "´", "Fo": "«", "Fc": "»", "12": "½",
    "14": "¼", "34": "¾", "la": "⟨", "ra": "⟩", "lB": "[", "rB": "]", "lC": "{", "rC": "}", "ss": "ß", "AE": "Æ", "ae": "æ", "OE": "Œ",
    "oe": "œ", "ff": "ff", "fi": "fi", "fl": "fl", "'e": "é", "`e": "è", "^e": "ê", ":e": "ë", "`a": "à", "^a": "â", "^o": "ô", ":o": "ö",
    "^i": "î", ":i": "ï", ":u": "ü", "`u": "ù", "^u": "û", ",c": "ç", ",C": "Ç", "'E": "É", "`A": "À", "~n": "ñ", "or": "|", "ba": "|",
    "br": "|", "no": "¬", "ru": "_", "eu": "€", "Eu": "€", "Po": "£", "ct": "¢", "sc": "§", "ps": "¶", "**": "∗", "*a": "α", "*b": "β",
    "*m": "μ", "*p": "π", "*S": "Σ", "if": "∞", "sr": "√", "==": "≡", "ap": "∼", "mc": "µ", "S2": "²", "S3": "³", "dg": "†",
}  # fmt: skip
_STRINGS = {"R": "®", "Tm": "™", "lq": "“", "rq": "”", "(C": "©", "C+": "C++", "Aq": "'"}
_SIMPLE = {"-": "-", "e": "\\", "\\": "\\", "'": "´", "`": "`", "~": " ", "0": " ", " ": " ", ".": ".", "t": "\t", "_": "_"}
_ESCAPE = re.compile(
    r"\\(?:f(?:\[[^\]\n]*\]|\(..|.)|[sS](?:[-+]?\[[^\]\n]*\]|[-+]?\([0-9][0-9]|[-+]?'[^'\n]*'|[-+]?[0-9]{1,2})"
    r"|\[(?P<long>[^\]\n]*)\]|\((?P<two>..)|C'(?P<name>[^'\n]*)'|\*(?:\[(?P<slong>[^\]\n]*)\]|\((?P<stwo>..)|(?P<sone>.))"
    r"|[hvwbBDlLNoRxXYZA]'[^'\n]*'|[nkFmMgVY](?:\[[^\]\n]*\]|\(..|.)|\"[^\n]*|#[^\n]*|(?P<one>[^\n])|$)"
)
_UNICODE = re.compile(r"u([0-9A-F]{4,6})(?:_[0-9A-F_]+)?$")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s"\\])(?:\\.|[^\s\\])*)')
_CONTROL = re.compile(r"[.']\s*(\\}|[^\s\\]+)?\s*(.*)", re.DOTALL)
_CONDITION = re.compile(r"(!?)\s*(?:([ntoe])(?![\w])|('[^']*'[^']*'|[^\s\\]+))\s*(.*)", re.DOTALL)
_COMMENT = re.compile(r"[.']\s*\\[\"#]|'''")
_TABLE_SEPARATOR = re.compile(r"tab\s*\((.)\)")

FONTS = frozenset({"B", "I", "R", "SM", "SB", "CW"})
FONT_PAIRS = frozenset({"BR", "RB", "BI", "IB", "IR", "RI"})
BREAKS = frozenset({"PP", "P", "LP", "sp", "Pp", "HP", "RE", "RS", "YS", "El", "bp", "ne"})
SECTIONS = frozenset({"SH", "SS", "Sh", "Ss"})
VERBATIM_START, VERBATIM_END = frozenset({"nf", "EX", "Vb", "Bd"}), frozenset({"fi", "EE", "Ve", "Ed"})
DEFINITIONS = frozenset({"de", "de1", "ig", "am", "am1", "di"})
_MDOC_NAMES = (
    "Ad An Aq Ar Bq Cd Cm Dl D1 Dq Dv Em Er Ev Fa Fl Fn Fo Ft Fx Ic In Lb Li Lk Ms Mt Nd Nm No Ns Op Pa Pf Pq Ql Qq Rv Sq St Sx Sy Tn Ux "
    "Va Vt Xr"
)
MDOC = frozenset(_MDOC_NAMES.split())
_MDOC_BRACKETS = {"Op": "[]", "Pq": "()", "Aq": "<>", "Bq": "[]", "Dq": "“”", "Sq": "‘’", "Qq": '""', "Ql": "‘’"}
_CLOSING = frozenset(".,:;)]?!")
_OPENING = ("-", "[", "(", "<", "“", "‘", '"')
_BULLETS = frozenset("•-*·o")


def roff_text(source: str, drop: tuple[str, ...] = ()) -> tuple[str, str]:
    """A manual page as (title, text). The title is the first paragraph of its first section (NAME), else that of `.TH`.

    Sections whose title is in `drop` are left out.
    """
    return _Page(drop).read(source.split("\n"))


def unescape(text: str) -> str:
    """A line of roff without escapes."""
    return _ESCAPE.sub(_replace, text) if "\\" in text else text


def arguments(text: str) -> list[str]:
    """The arguments of a macro: words, or text in double quotes; escapes are kept."""
    return [quoted.replace('""', '"') or word for quoted, word in _ARGUMENT.findall(text)]


def _replace(match: re.Match[str]) -> str:
    named = match["long"] or match["two"] or match["name"]
    if named is not None:
        code = _UNICODE.match(named)
        if code and 0 < (point := int(code[1], 16)) < 0x110000 and not 0xD800 <= point < 0xE000:
            return chr(point)
        return _NAMED.get(named, "")
    string = match["slong"] or match["stwo"] or match["sone"]
    if string is not None:
        return _STRINGS.get(string, "")
    return _SIMPLE.get(match["one"] or "", "")


class _Page:
    """One page while it is read: finished paragraphs, the one being filled, and how the next line is to be taken."""

    def __init__(self, drop: tuple[str, ...]) -> None:
        self._drop = drop
        self._dropping = False
        self._paragraphs: list[str] = []
        self._pieces: list[str] = []
        self._fill = True
        self._glue = True  # the next piece follows without a blank or line end
        self._expects = ""  # "tag" or "heading": what the next line of text is
        self._header = self._name = self._title = self._link = ""
        self._in_section = False
        self._else = False

    def read(self, source: list[str]) -> tuple[str, str]:
        lines = _logical_lines(source)
        for line in lines:
            self._line(line, lines)
        self._end_paragraph()
        return self._title or self._header, "\n\n".join(self._paragraphs)

    def _line(self, line: str, rest: Iterator[str]) -> None:
        if not line.startswith((".", "'")):
            self._text(line)
            return
        match = _CONTROL.match(line)
        name, argument = (match.group(1) or "", match.group(2)) if match else ("", "")
        if name in ("if", "ie", "el"):
            self._condition(name, argument, rest)
        elif name in DEFINITIONS:
            words = arguments(argument)
            end = "." + (words[1] if name != "ig" and len(words) > 1 else ".")
            next((True for skipped in rest if skipped.replace(" ", "").startswith(end)), None)
        elif name == "TS":
            self._end_paragraph()
            self._keep("\n".join(_table(rest)))
        else:
            self._macro(name, argument)

    def _condition(self, name: str, argument: str, rest: Iterator[str]) -> None:
        """`.if`, `.ie` and `.el`: what they govern is the rest of the line, or a block in braces."""
        if name == "el":
            taken, body = self._else, argument
        else:
            match = _CONDITION.match(argument)
            if match is None:
                return
            taken, body = (match.group(2) == "n") != bool(match.group(1)), match.group(4)
            self._else = name == "ie" and not taken
        if taken:
            if body := body.replace("\\{", "").replace("\\}", "").strip("\\ "):
                self._line(body, rest)
            return
        depth = body.count("\\{") - body.count("\\}")
        while depth > 0 and (line := next(rest, None)) is not None:
            depth += line.count("\\{") - line.count("\\}")

    def _macro(self, name: str, argument: str) -> None:
        if name in FONTS or name in FONT_PAIRS or name in MDOC:
            if argument.strip() or name == "Nm":
                self._add(_inline(name, argument) if name not in MDOC else self._mdoc(name, arguments(argument)))
        elif name in SECTIONS:
            self._end_paragraph()
            self._fill = True
            self._heading(unescape(" ".join(arguments(argument))))
        elif name in VERBATIM_START or name in VERBATIM_END:
            self._end_paragraph()
            self._fill = name in VERBATIM_END
        elif name == "br" or (name in BREAKS and not self._fill):
            self._end_line()
        elif name in BREAKS:
            self._end_paragraph()
        elif name in ("TP", "TQ"):
            self._end_paragraph()
            self._expects = "tag"
        elif name in ("IP", "It"):
            self._end_paragraph()
            words = arguments(argument)
            self._tag(unescape(" ".join(words if name == "It" else words[:1])).strip())
        elif name in ("TH", "Dt"):
            words = [unescape(word) for word in arguments(argument)[:2]]
            self._header = f"{words[0]}({words[1]})" if len(words) == 2 else "".join(words)
        elif name in ("UR", "MT"):
            self._link = unescape(argument.strip())
        elif name in ("UE", "ME"):
            if self._link:
                self._add(self._link)
            if argument.strip():
                self._glue = True
                self._add(unescape(argument.strip()))
        elif name == "SY":
            self._end_paragraph()
            self._add(unescape(" ".join(arguments(argument))))
        elif name == "OP":
            self._add(unescape(f"[{' '.join(arguments(argument))}]"))

    def _mdoc(self, name: str, words: list[str]) -> str:
        """An mdoc macro line in words; macros among the arguments apply to those that follow."""
        if name == "Nm" and words and words[0] not in _CLOSING:
            self._name = self._name or words[0]
        elif name == "Nm":
            words = [self._name, *words]
        out, end = "- " if name == "Nd" else "", ""
        for position, word in enumerate((name, *words)):
            if word in MDOC:
                opening, closing = _MDOC_BRACKETS.get(word, ("-", "") if word == "Fl" else ("", ""))
                out += opening if out.endswith(_OPENING) or not opening else f" {opening}"
                end = closing + end
                continue
            text = unescape(word)
            if name == "Xr" and position == 2 and text[:1].isdigit():
                text = f"({text})"
            out += text if out.endswith(_OPENING) or text[:1] in _CLOSING or text.startswith("(") else f" {text}"
        return (out + end).strip()

    def _text(self, line: str) -> None:
        if not line.strip():
            if self._fill:
                self._end_paragraph()
            else:
                self._end_line()
            return
        if self._fill and line[0] in " \t":
            self._end_line()
        self._add(unescape(line))

    def _add(self, text: str) -> None:
        """One line of output text, wherever it now belongs."""
        self._link = ""
        if self._expects == "heading":
            self._heading(text)
        elif self._expects == "tag":
            self._tag(text.strip())
        elif text.strip():
            text = " ".join(text.split()) if self._fill else text
            self._pieces.append(text if self._glue else f" {text}" if self._fill else f"\n{text}")
            self._glue = False

    def _tag(self, mark: str) -> None:
        """The tag of a list item: a bullet stands before the item's text, words stand on a line of their own."""
        self._expects = ""
        if mark:
            self._pieces.append(f"{mark} " if mark in _BULLETS else f"{mark}\n")
            self._glue = True

    def _heading(self, title: str) -> None:
        self._expects = "" if title.strip() else "heading"
        if title.strip():
            title = " ".join(title.split())
            self._dropping = title in self._drop
            self._keep(title)
            self._in_section = True

    def _end_line(self) -> None:
        if self._pieces and not self._glue:
            self._pieces.append("\n")
            self._glue = True

    def _end_paragraph(self) -> None:
        paragraph = "".join(self._pieces).strip("\n").rstrip()
        self._pieces, self._glue, self._expects = [], True, ""
        if paragraph.strip():
            if self._in_section and not self._title:
                self._title = " ".join(paragraph.split())[:200]
            self._keep(paragraph)

    def _keep(self, paragraph: str) -> None:
        if paragraph and not self._dropping:
            self._paragraphs.append(paragraph)


def _inline(name: str, argument: str) -> str:
    """The words of a font macro: two alternating fonts set theirs without blanks between."""
    return unescape(("" if name in FONT_PAIRS else " ").join(arguments(argument)))


def _logical_lines(lines: list[str]) -> Iterator[str]:
    """Lines without comment lines, lines that end in a backslash joined with the next."""
    pending = ""
    for raw in lines:
        line = pending + raw.rstrip("\r")
        pending = ""
        if _COMMENT.match(line):
            continue
        odd = (len(line) - len(line.rstrip("\\"))) % 2
        if odd and not line.endswith("{\\") and len(line) < 100_000:
            pending = line[:-1]
        else:
            yield line
    if pending:
        yield pending


def _table(lines: Iterator[str]) -> list[str]:
    """The rows of a tbl(1) table up to `.TE`, cells joined by a bar. Cells may be blocks of lines in `T{ T}`."""
    separator, formatted = "\t", False
    rows: list[str] = []
    row: list[str] = []
    for line in lines:
        if line.startswith(".TE"):
            break
        if not formatted:
            option = _TABLE_SEPARATOR.search(line)
            separator = option.group(1) if option else separator
            formatted = line.rstrip().endswith(".")
        elif line.startswith(".T&"):
            formatted = False
        elif row and not line.startswith("T}"):
            name, _, argument = line[1:].partition(" ")
            if not line.startswith("."):
                row.append(line)
            elif name in FONTS or name in FONT_PAIRS:
                row.append(("" if name in FONT_PAIRS else " ").join(arguments(argument)))
        elif row or not line.startswith("."):
            row.append(line[2:] if row else line)
            if line.rstrip().endswith("T{"):
                row[-1] = row[-1].rstrip()[:-2]
                row = ["\n".join(row)]
                continue
            rows.append(" ".join(row))
            row = []
    cells = ([" ".join(unescape(cell).split()) for cell in row.split(separator)] for row in rows)
    return [" | ".join(filter(None, row)) for row in cells if any(cell not in ("", "_", "=", "^", "-") for cell in row)]
