"""The `sources` section of a recipe: one entry for each place text comes from, told apart by `reader`.

An entry takes its files from Debian packages (`packages`, and `members` to say which files inside them), from local
files or storage URLs (`paths`, globs; a path that ends in .deb is opened like a package), or from the Hugging Face
hub (`reader: hub`). Everything else in an entry says how its files become documents.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from cluster.config import Section

Family = Literal["culture", "business", "knowledge", "translation", "internet", "code"]
Language = Annotated[str, Field(pattern=r"^([a-z]{2,3}|code)$")]

FETCHED_FIELDS = frozenset(
    {"name", "reader", "license", "lang", "translation_lang", "packages", "paths", "translation_paths", "dataset", "revision", "files"}
)
"""The fields that decide what `fetch` brings in; changing any other one (a cap, a CSS selector) fetches nothing anew."""


class Source(Section):
    """What every source says: its name, its language, and under which terms its text may be used."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    reader: str
    lang: Language = Field(description="ISO 639 code of the text, `code` for program code")
    family: Family
    license: str = Field(min_length=1, description="SPDX expression, or LicenseRef-... where SPDX has no name for it")
    cap_mb: float | None = Field(default=None, gt=0, description="keep about this many MB of UTF-8 text, a random sample; none: all")


class FileSource(Source):
    """A source made of files: members of Debian packages, or local files and storage URLs."""

    packages: tuple[str, ...] = Field(default=(), description="Debian packages; `a | b` takes the first that the archive has")
    members: tuple[str, ...] = Field(default=("**",), description="globs of the files wanted inside each package")
    paths: tuple[str, ...] = Field(default=(), description="files, folders or globs (** crosses folders) instead of packages")

    @field_validator("packages")
    @classmethod
    def _package_names(cls, packages: tuple[str, ...]) -> tuple[str, ...]:
        for package in packages:
            for name in package_alternatives(package):
                if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
                    raise ValueError(f"{name!r} is not the name of a Debian package")
        return packages

    @model_validator(mode="after")
    def _one_origin(self) -> FileSource:
        if bool(self.packages) == bool(self.paths):
            raise ValueError(f"source {self.name!r} needs either packages or paths")
        return self


class StarDictSource(FileSource):
    """StarDict dictionaries (.idx + .dict.dz): one document an article. Articles may hold Pango or HTML markup."""

    reader: Literal["stardict"]
    drop_sections: tuple[str, ...] = Field(default=(), description="titles of sections of an article that are left out")


class DictdSource(FileSource):
    """dictd dictionaries (.index + .dict.dz): one document an article."""

    reader: Literal["dictd"]
    style: Literal["gcide", "wordnet", "plain"] = Field(default="plain", description="whose notation the articles are written in")


class DescriptionsSource(Source):
    """Debian package descriptions, from apt's own translation lists or from local copies of them.

    With `translation_lang`, parallel text: descriptions that both lists hold, paragraph by paragraph.
    """

    reader: Literal["descriptions"]
    translation_lang: Language | None = None
    paths: tuple[str, ...] = Field(default=(), description="files or globs of Translation-XX lists, where apt is not to be asked")
    translation_paths: tuple[str, ...] = Field(default=(), description="the same for translation_lang")

    @model_validator(mode="after")
    def _both_lists(self) -> DescriptionsSource:
        if bool(self.paths and self.translation_lang) != bool(self.translation_paths):
            raise ValueError(f"source {self.name!r}: paths, translation_paths and translation_lang go together")
        return self


class HtmlSource(FileSource):
    """HTML pages: one document a page, without navigation, scripts and styles."""

    reader: Literal["html"]
    root: str = Field(default="", description="CSS selector of the element that holds the page's text; default: main, article or body")
    drop: tuple[str, ...] = Field(default=(), description="CSS selectors of what is not text of the page")
    faq: bool = Field(default=False, description="headings that ask are questions, what follows them answers")
    collection: str = Field(default="", description="shared name of all language versions of these pages")


class AlignedHtmlSource(FileSource):
    """The same HTML pages in two languages: one parallel document a page, for pages whose blocks correspond.

    `members` (or `paths`) are the pages in `lang`, `translation_members` (or `translation_paths`) those in
    `translation_lang`. Two pages correspond when their paths differ only in language tags.
    """

    reader: Literal["aligned_html"]
    translation_lang: Language
    translation_members: tuple[str, ...] = ()
    translation_paths: tuple[str, ...] = ()
    root: str = ""
    drop: tuple[str, ...] = ()
    collection: str = ""

    @model_validator(mode="after")
    def _both_sides(self) -> AlignedHtmlSource:
        if self.packages and not self.translation_members:
            raise ValueError(f"source {self.name!r} needs translation_members, the pages in {self.translation_lang}")
        if self.paths and not (self.translation_paths or self.translation_members):
            raise ValueError(f"source {self.name!r} needs translation_paths, the pages in {self.translation_lang}")
        return self


class ManPagesSource(FileSource):
    """Manual pages in roff: one document a page."""

    reader: Literal["manpages"]
    collection: str = Field(default="man", description="shared name of all language versions of these pages")
    drop_sections: tuple[str, ...] = Field(default=(), description="titles of sections that are left out")


class GettextSource(FileSource):
    """Message catalogues (.mo): parallel documents of `messages_per_document` messages each.

    `lang` is the language of the translations, `translation_lang` that of the original messages.
    """

    reader: Literal["gettext"]
    translation_lang: Language = "en"
    messages_per_document: int = Field(default=30, ge=1, le=1000)


class TextSource(FileSource):
    """Plain text or program code (`lang: code`): a document is a file, a paragraph between empty lines, or a line."""

    reader: Literal["text"]
    document: Literal["file", "paragraph", "line"] = "file"


class Columns(Section):
    """Where a row's parts are. Columns named here must exist, except the defaults of `url` and `date`."""

    text: str = "text"
    translation: str | None = Field(default=None, description="the other side of parallel data")
    url: str = "url"
    date: str = "date"
    meta: tuple[str, ...] = Field(default=(), description="columns kept in the document's meta")


class RowSource(Source):
    """A source whose files hold rows with named columns; with `columns.translation` it is parallel data."""

    columns: Columns = Columns()
    translation_lang: Language | None = None

    @model_validator(mode="after")
    def _translation_has_language(self) -> RowSource:
        if (self.columns.translation is None) != (self.translation_lang is None):
            raise ValueError(f"source {self.name!r}: columns.translation and translation_lang go together")
        return self


class JsonlSource(RowSource, FileSource):
    """JSON Lines, plain or compressed (.gz, .bz2, .xz, .zst): one document a line."""

    reader: Literal["jsonl"]


class ParquetSource(RowSource, FileSource):
    """Parquet files: one document a row."""

    reader: Literal["parquet"]


class HubSource(RowSource):
    """A data set of the Hugging Face hub (Parquet or JSON Lines files), for machines that reach it."""

    reader: Literal["hub"]
    dataset: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name")
    revision: str = Field(default="main", description="branch, tag or commit; name a commit to get the same data for ever")
    files: tuple[str, ...] = Field(default=("**/*.parquet", "**/*.jsonl*"), description="globs of the files wanted in the data set")


SourceConfig = Annotated[
    StarDictSource
    | DictdSource
    | DescriptionsSource
    | HtmlSource
    | AlignedHtmlSource
    | ManPagesSource
    | GettextSource
    | TextSource
    | JsonlSource
    | ParquetSource
    | HubSource,
    Field(discriminator="reader"),
]


class Sources(Section):
    """All sources of a recipe. `pipelines.fetch.check_sources` says whether they can be read here."""

    sources: tuple[SourceConfig, ...]


class FetchConfig(Sources):
    """What `fetch` needs. Only the fields that decide what is fetched are dumped, and so hashed."""

    @field_serializer("sources")
    def _only_what_is_fetched(self, sources: tuple[Source, ...]) -> list[dict[str, Any]]:
        return [source.model_dump(mode="json", include=set(FETCHED_FIELDS)) for source in sources]


class ExtractConfig(Sources):
    """What `extract` needs."""


def package_alternatives(package: str) -> list[str]:
    """`libpython3.11-stdlib | libpython3.13-stdlib` as a list of names, in order of preference."""
    return [name.strip() for name in package.split("|")]
