"""HTML to blocks of text: headings, paragraphs, list items, table cells and preformatted text, in reading order.

Both readers of HTML use it: `html` joins a page's blocks into one text, `aligned_html` pairs them across languages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

BOILERPLATE = (
    "nav, header, footer, aside, script, style, noscript, template, svg, iframe, object, button, select, textarea, form, head, "
    "[role=navigation], [role=search], [role=banner], [role=contentinfo], .navheader, .navfooter, .headerlink, .permalink"
)
"""CSS selectors of what is never a page's own text (the classes are those of DocBook and Sphinx)."""
MAIN = ("main", "[role=main]", "article")

_BLOCK_NAMES = """
address article blockquote body caption center dd details dir div dl dt fieldset figcaption figure h1 h2 h3 h4 h5 h6 hr li main menu
ol p pre section summary table tbody td tfoot th thead tr ul
"""
BLOCK_TAGS = frozenset(_BLOCK_NAMES.split())
HEADING = re.compile(r"h[1-6]$")
BLANKS = re.compile(r"[\s\u200b\ufeff]+")


@dataclass(frozen=True)
class Block:
    """One block of text. `kind` is h1 to h6, p, li, dt, dd, td or pre; `row` numbers the table row of a cell (0: none);
    `marker` is what stands before a list item."""

    kind: str
    text: str
    row: int = 0
    cell: int = 0
    marker: str = ""

    @property
    def is_heading(self) -> bool:
        return HEADING.match(self.kind) is not None


@dataclass(frozen=True)
class Page:
    """A page's title (its first h1, else its <title>) and blocks."""

    title: str
    blocks: tuple[Block, ...]


def parse_page(html: str, root: str = "", drop: Iterable[str] = ()) -> Page:
    """The blocks of a page. `root` selects the element that holds its text, `drop` more boilerplate; both are CSS."""
    tree = LexborHTMLParser(html)
    title = tree.css_first("title")
    fallback = BLANKS.sub(" ", title.text()).strip() if title else ""
    skipped = {node.mem_id for node in tree.css(", ".join((BOILERPLATE, *drop)))}
    top = next((found for selector in ((root,) if root else MAIN) if (found := tree.css_first(selector))), None) or tree.body
    if top is None:
        return Page(fallback, ())
    blocks = tuple(_Walk(skipped).blocks(top))
    heading = next((block.text for block in blocks if block.kind == "h1"), "")
    return Page(heading or fallback, blocks)


def check_selector(selector: str) -> str | None:
    """Why a CSS selector cannot be used, or None."""
    try:
        LexborHTMLParser("<p>").css(selector)
    except (SelectolaxError, ValueError) as error:
        return str(error) or "not a CSS selector"
    return None


def page_text(blocks: Iterable[Block]) -> str:
    """Blocks as one text: an empty line between paragraphs, none between list items or table rows."""
    pieces: list[str] = []
    last: Block | None = None
    for block in _join_rows(list(blocks)):
        if last is not None:
            close = (block.kind == last.kind and block.kind in ("li", "tr")) or (block.kind == "dd" and last.kind == "dt")
            pieces.append("\n" if close else "\n\n")
        pieces.append(f"{block.marker} {block.text}" if block.marker else block.text)
        last = block
    return "".join(pieces)


def _join_rows(blocks: list[Block]) -> Iterator[Block]:
    """Rows of real tables become one line; cells that hold several blocks (layout tables) stay as they are."""
    start = 0
    while start < len(blocks):
        end = start + 1
        if row := blocks[start].row:
            while end < len(blocks) and blocks[end].row == row:
                end += 1
            cells = blocks[start:end]
            if len({block.cell for block in cells}) == len(cells) and all("\n" not in block.text for block in cells):
                yield Block("tr", " | ".join(block.text for block in cells))
                start = end
                continue
        yield from blocks[start:end]
        start = end


class _Walk:
    """A depth-first walk that cuts text at the start and the end of every block element."""

    def __init__(self, skipped: set[int]) -> None:
        self._skipped = skipped
        self._pieces: list[str] = []
        self._open: list[str] = []
        self._rows, self._cells = 0, 0
        self._row: list[int] = []
        self._lists: list[int | None] = []
        self._marker = ""

    def blocks(self, top: LexborNode) -> Iterator[Block]:
        node, end = top, top.mem_id
        while True:
            if node.mem_id not in self._skipped:
                yield from self._enter(node)
                child = node.child
                if child is not None:
                    node = child
                    continue
            while True:
                if node.mem_id not in self._skipped:
                    yield from self._leave(node)
                if node.mem_id == end:
                    return
                following = node.next
                if following is not None:
                    node = following
                    break
                parent = node.parent
                if parent is None:
                    return
                node = parent

    def _enter(self, node: LexborNode) -> Iterator[Block]:
        tag = node.tag or ""
        if tag == "-text":
            self._pieces.append(node.text_content or "")
        elif tag == "br":
            self._pieces.append("\n" if "pre" in self._open else "\u2028")
        elif tag == "img" or tag.startswith("-"):
            return
        elif tag in BLOCK_TAGS:
            yield from self._flush()
            self._open.append(tag)
            if tag == "tr":
                self._rows += 1
                self._row.append(self._rows)
            elif tag in ("td", "th"):
                self._cells += 1
            elif tag in ("ul", "ol", "menu", "dir"):
                self._lists.append(1 if tag == "ol" else None)
            elif tag == "li":
                self._marker = self._next_marker()

    def _leave(self, node: LexborNode) -> Iterator[Block]:
        tag = node.tag or ""
        if tag not in BLOCK_TAGS or not self._open:
            return
        yield from self._flush()
        self._open.pop()
        if tag == "tr" and self._row:
            self._row.pop()
        elif tag in ("ul", "ol", "menu", "dir") and self._lists:
            self._lists.pop()
        elif tag == "li":
            self._marker = ""

    def _next_marker(self) -> str:
        if not self._lists or self._lists[-1] is None:
            return "-"
        number = self._lists[-1]
        self._lists[-1] = number + 1
        return f"{number}."

    def _flush(self) -> Iterator[Block]:
        """The text since the last cut, if there is any, as a block of the innermost telling element."""
        if not self._pieces:
            return
        raw = "".join(self._pieces)
        self._pieces.clear()
        kind = next((tag for tag in reversed(self._open) if HEADING.match(tag) or tag in _KINDS), "p")
        if kind == "pre":
            text = raw.replace("\u2028", "\n").strip("\n")
            if not text.strip():
                return
        else:
            text = "\n".join(line for part in raw.split("\u2028") if (line := BLANKS.sub(" ", part).strip()))
            if not text:
                return
        block = Block(_KINDS.get(kind, kind), text)
        if self._row:
            block = replace(block, row=self._row[-1], cell=self._cells)
        if self._marker and kind == "li":
            block = replace(block, marker=self._marker)
            self._marker = ""
        yield block


_KINDS = {"pre": "pre", "li": "li", "dt": "dt", "dd": "dd", "td": "td", "th": "td", "caption": "p", "figcaption": "p"}
