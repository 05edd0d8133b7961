from __future__ import annotations

import pytest

from pipelines.sources.roff import arguments, roff_text, unescape

PAGE = r""".\" Copyright (c) quelqu'un
.TH LIRE 2 "10 février 2023" "Manuel"
.SH NOM
lire, relire \- lire un fichier
.SH SYNOPSIS
.nf
.B #include <lire.h>
.PP
.BI "int lire(int " fd ", char *" tampon );
.fi
.SH DESCRIPTION
La fonction
.BR lire ()
lit un fichier\ ; voyez
.IR fd .
.PP
Second paragraphe \(em avec \[u00E9]l\('egance,
sur deux lignes.
.TP
.B \-a
Première option.
.IP \(bu 2
Une puce.
.if t .B jamais
.ie n \{\
.I toujours
.\}
.el \{\
.B jamais
.\}
.TS
tab(:) allbox;
lb l
l l.
Nom:Sens
_
lire:T{
lit un
.B fichier
T}
.TE
.SS Sous-section
.UR https://exemple.fr
Le site
.UE .
.SH TRADUCTION
Par quelqu'un.
"""


def test_manual_page() -> None:
    title, text = roff_text(PAGE, drop=("TRADUCTION",))
    assert title == "lire, relire - lire un fichier"
    assert text.split("\n\n") == [
        "NOM",
        "lire, relire - lire un fichier",
        "SYNOPSIS",
        "#include <lire.h>\nint lire(int fd, char *tampon);",
        "DESCRIPTION",
        "La fonction lire() lit un fichier ; voyez fd.",
        "Second paragraphe — avec élégance, sur deux lignes.",
        "-a\nPremière option.",
        "• Une puce. toujours",
        "Nom | Sens\nlire | lit un fichier",
        "Sous-section",
        "Le site.",
    ]


def test_mdoc_page() -> None:
    page = ".Dd May 1\n.Dt CP 1\n.Sh NAME\n.Nm cp\n.Nd copy files\n.Sh SYNOPSIS\n.Nm\n.Op Fl R\n.Ar source\n.Pp\nSee\n.Xr mv 1 ,\n.Dq so\n"
    title, text = roff_text(page)
    assert title == "cp - copy files"
    assert text.split("\n\n") == ["NAME", "cp - copy files", "SYNOPSIS", "cp [-R] source", "See mv(1), “so”"]


@pytest.mark.parametrize(
    ("roff", "text"),
    [
        (r"\fBgras\fP et \f(CWfixe\fR", "gras et fixe"),
        (r"a\-b \(aqc\(aq \e \~d\&", "a-b 'c' \\  d"),
        (r"\s-1PETIT\s0 \s+2grand\s-2", "PETIT grand"),
        (r"\[u20AC]\[u110000]\[uD800]\[inconnu]", "€"),
        (r"\h'2n'\v'-1'x\w'abc'", "x"),
        (r"fin\" commentaire", "fin"),
        (r"\*(lqcité\*(rq \*R", "“cité” ®"),
        ("\\", ""),
    ],
)
def test_escapes(roff: str, text: str) -> None:
    assert unescape(roff) == text


def test_arguments() -> None:
    assert arguments(r'un "deux ""trois""" qua\ tre "cinq') == ["un", 'deux "trois"', r"qua\ tre", "cinq"]


def test_definitions_are_not_text() -> None:
    assert roff_text(".de XX\n.nf\ncaché\n..\nvisible\n.ig\ncaché\n..\n")[1] == "visible"


def test_continued_lines_and_redirections() -> None:
    assert roff_text("un \\\ndeux\n")[1] == "un deux"
    assert roff_text(".so man2/open.2\n") == ("", "")
