from __future__ import annotations

import pytest

from pipelines.sources.blocks import Block, check_selector, page_text, parse_page

PAGE = """<html><head><title>Onglet | Site</title><style>p {}</style></head><body>
<nav><ul><li>Accueil</li></ul></nav>
<div class="menu">Menu</div>
<h1>Le pain <a class="permalink">¶</a></h1>
<p>Pétrir la&nbsp;pâte,
   puis <b>attendre</b>.<br>Cuire.</p>
<ol><li>Farine</li><li><p>Eau</p><p>Sel</p></li></ol>
<ul><li>Un<ul><li>Deux</li></ul></li></ul>
<dl><dt>Four</dt><dd>Très chaud</dd></dl>
<table><tr><th>Nom</th><td>Baguette</td></tr><tr><td>Poids</td><td>250 g</td></tr></table>
<table><tr><td><p>Une cellule</p><p>à deux blocs</p></td></tr></table>
<pre>if x:
    y()
</pre>
<script>alert(1)</script><footer>Pied</footer></body></html>"""


def test_page_as_text() -> None:
    page = parse_page(PAGE, drop=[".menu"])
    assert page.title == "Le pain"
    assert page_text(page.blocks) == (
        "Le pain\n\nPétrir la pâte, puis attendre.\nCuire.\n\n1. Farine\n2. Eau\nSel\n- Un\n- Deux\n\nFour\nTrès chaud\n\n"
        "Nom | Baguette\nPoids | 250 g\n\nUne cellule\n\nà deux blocs\n\nif x:\n    y()"
    )


def test_title_without_heading_and_root() -> None:
    assert parse_page("<title> Un  titre </title><p>x").title == "Un titre"
    page = parse_page('<p>dehors</p><div id="ici"><p>dedans</p></div>', root="#ici")
    assert [block.text for block in page.blocks] == ["dedans"]
    assert [block.text for block in parse_page("<p>a</p><main>b</main>").blocks] == ["b"]


def test_root_that_is_not_there_falls_back_to_the_page() -> None:
    assert [block.text for block in parse_page("<p>a</p>", root="#no").blocks] == ["a"]


@pytest.mark.parametrize("html", ["", "<", "<html>", "<table><tr><td>", "</p></div>", "<p>\x01\u2028</p>", "<ul><li><ul></ul></ul></li>a"])
def test_odd_html(html: str) -> None:
    page_text(parse_page(html).blocks)


def test_very_deep_nesting() -> None:
    assert parse_page("<div>" * 20_000 + "fond").blocks[-1] == Block("p", "fond")


def test_selectors_are_checked() -> None:
    assert check_selector("p.embedded > a[target]") is None
    assert check_selector("p..x[") is not None
