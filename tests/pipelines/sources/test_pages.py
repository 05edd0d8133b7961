from __future__ import annotations

import pytest

from pipelines.sources.pages import neutral_path, page_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("usr/share/man/fr/man2/open.2.gz", "usr/share/man/man2/open.2.gz"),
        ("usr/share/doc/guide-fr/html/a.fr.html", "usr/share/doc/guide/html/a.en.html"),
        ("help/fr/text/01/x.html", "help/en-US/text/01/x.html"),
        ("doc/html/fr-FR/x.html", "doc/html/x.html"),
        ("help/fr/x.page", "help/C/x.page"),
    ],
)
def test_versions_of_a_page_have_one_key(one: str, other: str) -> None:
    assert page_key("a", one) == page_key("a", other)


def test_different_pages_keep_their_keys() -> None:
    paths = ["man/man2/open.2", "man/man3/open.3", "text/shared/01/x.html", "text/shared/02/x.html", "mod/mod_fr.html", "a.html"]
    assert len({neutral_path(path) for path in paths}) == len(paths)
