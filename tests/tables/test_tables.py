"""Tables say the same in every format, and no text in them can break one."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from safeswap.tables import (
    Cell,
    Column,
    Row,
    Table,
    as_csv,
    as_html,
    as_latex,
    as_markdown,
    as_rich,
    html_table,
    plain,
    print_tables,
    spreadsheet_safe,
)
from safeswap.tables.terminal import as_text

UNTIMED = settings(deadline=None)
TEXTS = st.text(max_size=30) | st.sampled_from(
    [
        "=1+1",
        "a|b",
        "50 % & <b>_x_</b>",
        "\\end{table}",
        "a\nb",
        "مرحبا",
        "한국어",
        "*x",
        "[y]",
        "-- x",
    ]
)
NOT_TELUGU = "MultiJail has no Telugu."


def golden() -> Table:
    """Two models, two benchmarks, a missing cell said twice, and a row group."""
    columns = (
        Column("model", align="left"),
        Column("sw", "MultiJail"),
        Column("te", "MultiJail"),
        Column("sw", "BELEBELE"),
    )
    rows = (
        Row.of(
            "base",
            Cell.figure(0.4567, 0.4, 0.5123, key="base/multijail/sw"),
            Cell.missing(NOT_TELUGU),
            Cell.figure(0.5, 0.45, 0.55),
            group="inputs",
        ),
        Row.of(
            "swap",
            Cell.figure(0.0123, 0.001, 0.04, note="3 unparsed"),
            Cell.missing(NOT_TELUGU),
            Cell.figure(0.51, 0.46, 0.56),
            group="merges",
        ),
    )
    return Table("Unsafe & right, %", columns, rows, ("In brackets, 95 % intervals.",))


def one(text: str, note: str | None = None) -> Table:
    columns = (Column(text, align="left"), Column("b", text))
    rows = (Row.of(Cell(text, note=note), "x", group=text), Row.of("y", text))
    return Table(text, columns, rows, (text,))


# Cells --------------------------------------------------------------------------------------------


def test_figures_are_shares_in_per_cent_unless_said() -> None:
    assert Cell.figure(0.1234, 0.1, 0.2).text == "12.3 [10.0, 20.0]"
    assert Cell.figure(0.63, scale=1, digits=2).text == "0.63"
    assert Cell.figure(-0.021, -0.05, 0.0001, sign=True).text == "-2.1 [-5.0, 0.0]"
    assert Cell.figure(0.021, sign=True).text == "+2.1"
    assert Cell.figure(-0.0001).text == "0.0"
    assert Cell.figure(0.0123).value == 0.0123


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="'t', row 2: 1 cells for 2 columns"):
        Table("t", (Column("a"), Column("b")), (Row.of("x", "y"), Row.of("x")))
    with pytest.raises(ValueError, match="no columns"):
        Table("t", (), ())


# The golden table ---------------------------------------------------------------------------------


def test_markdown() -> None:
    assert as_markdown(golden()) == MARKDOWN


MARKDOWN = """\
**Unsafe &amp; right, %**

| model      |      MultiJail · sw | MultiJail · te |       BELEBELE · sw |
| ---------- | ------------------: | -------------: | ------------------: |
| **inputs** |                     |                |                     |
| base       | 45.7 \\[40.0, 51.2\\] |          n/a ¹ | 50.0 \\[45.0, 55.0\\] |
| **merges** |                     |                |                     |
| swap       |  1.2 \\[0.1, 4.0\\] ² |          n/a ¹ | 51.0 \\[46.0, 56.0\\] |

¹ MultiJail has no Telugu.

² 3 unparsed

In brackets, 95 % intervals.
"""


def test_csv() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(golden()), newline="")))
    assert rows[0] == [
        "group",
        "model",
        *(f"MultiJail · sw{f}" for f in ("", " value", " low", " high", " note", " key")),
        *(f"MultiJail · te{f}" for f in ("", " note")),
        *(f"BELEBELE · sw{f}" for f in ("", " value", " low", " high")),
    ]
    by_name = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert by_name[0]["MultiJail · sw value"] == "0.4567"
    assert by_name[0]["MultiJail · sw key"] == "base/multijail/sw"
    assert by_name[1]["MultiJail · te"] == "n/a"
    assert by_name[1]["MultiJail · te note"] == NOT_TELUGU
    assert [row["group"] for row in by_name] == ["inputs", "merges"]


def test_latex() -> None:
    assert as_latex(golden()) == LATEX


LATEX = r"""\begin{table}
\centering
\caption{Unsafe \& right, \%}
\begin{tabular}{lrrr}
\toprule
 & \multicolumn{2}{c}{MultiJail} & \multicolumn{1}{c}{BELEBELE} \\
\cmidrule(lr){2-3} \cmidrule(lr){4-4}
model & sw & te & sw \\
\midrule
\multicolumn{4}{l}{\textit{inputs}} \\
base & 45.7 {[}40.0, 51.2{]} & n/a\textsuperscript{1} & 50.0 {[}45.0, 55.0{]} \\
\midrule
\multicolumn{4}{l}{\textit{merges}} \\
swap & 1.2 {[}0.1, 4.0{]}\textsuperscript{2} & n/a\textsuperscript{1} & 51.0 {[}46.0, 56.0{]} \\
\bottomrule
\end{tabular}
\par\smallskip{\footnotesize \textsuperscript{1}~MultiJail has no Telugu.\par}
\par\smallskip{\footnotesize \textsuperscript{2}~3 unparsed\par}
\par\smallskip{\footnotesize In brackets, 95 \% intervals.\par}
\end{table}
"""


def test_html_names_its_rows_columns_and_groups() -> None:
    page = as_html(golden(), title="Evidence")
    assert page.startswith("<!DOCTYPE html>") and "<h1>Evidence</h1>" in page
    for part in (
        '<caption id="table1-title">Unsafe &amp; right, %</caption>',
        '<th scope="colgroup" colspan="2">MultiJail</th>',
        '<th scope="col" class="right">te</th>',
        '<th scope="rowgroup" colspan="4">merges</th>',
        '<th scope="row"><bdi>swap</bdi></th>',
        'data-key="base/multijail/sw"',
        '<li id="table1-note1">MultiJail has no Telugu.</li>',
        '<a href="#table1-note1">1</a>',
        'name="viewport"',
    ):
        assert part in page, part
    for outside in ("http:", "https:", "<script", "<link", "<img", "@import", "url("):
        assert outside not in page


def test_a_page_of_several_tables_has_no_id_twice() -> None:
    ids = re.findall(r'id="([^"]+)"', as_html([golden(), golden()]))
    assert len(ids) == len(set(ids)) == 8


def shown(table: Table, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(as_rich(table))
    return console.export_text()


def test_the_terminal_shows_texts_groups_and_notes() -> None:
    text = shown(golden())
    for part in ("MultiJail", "45.7 [40.0, 51.2]", "n/a ¹", "inputs", f"¹ {NOT_TELUGU}", "² 3 un"):
        assert part in text, part


# No text breaks a format --------------------------------------------------------------------------


def spreadsheet_plain(text: str) -> str:
    return text.removeprefix("'")


@UNTIMED
@given(TEXTS)
def test_csv_comes_back_through_the_csv_module(text: str) -> None:
    rows = list(csv.reader(io.StringIO(as_csv(one(text, note=text or None)), newline="")))
    back = [[spreadsheet_plain(field) for field in row] for row in rows]
    grouped = bool(text)
    assert len(rows) == 3
    first = back[1][1:] if grouped else back[1]
    assert first[0] == back[2][-1] == re.sub("[\0\ud800-\udfff]", "�", text)


@UNTIMED
@given(TEXTS)
def test_no_text_is_a_formula_and_every_text_comes_back(text: str) -> None:
    safe = spreadsheet_safe(text)
    assert spreadsheet_plain(safe) == text
    if safe.lstrip()[:1] in tuple("=+-@＝＋－＠"):
        float(safe)
    for number in ("-1.5", "+3", "1e5"):
        assert spreadsheet_safe(number) == number
    for risk in ("=1+1", "-1+cmd", "@SUM(A1)", "\t=1", " =1", "＝1", "+a"):
        assert spreadsheet_safe(risk) == f"'{risk}"


class _Texts(HTMLParser):
    """The texts of captions, cells and notes, and whether every element was closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "meta":
            return
        self.open.append(tag)
        if tag in ("caption", "th", "td", "li", "p"):
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = {"caption", "th", "td", "li", "p"} & set(self.open)
        if inside and "sup" not in self.open:
            self.texts[-1] += data


@UNTIMED
@given(TEXTS, TEXTS)
def test_html_gives_its_texts_back(text: str, note: str) -> None:
    parser = _Texts()
    parser.feed(as_html(one(text, note=note or None), title=text))
    parser.close()
    assert parser.open == []
    seen, words = [part.strip() for part in parser.texts], plain(text)
    expected = [words, "", words, words, "b", words, words, "x", "y", words, plain(note), words]
    if not text:
        expected = ["", "", "b", "", "x", "y", "", plain(note), ""]
    if not note:
        expected.pop(-2)
    assert seen == expected


_COMMAND = re.compile(r"\\(?:[A-Za-z]+|[{}$&%#_\\])")


@UNTIMED
@given(TEXTS)
def test_latex_is_balanced_and_holds_no_raw_special(text: str) -> None:
    latex = as_latex(one(text, note=text or None))
    bare = _COMMAND.sub("", latex)
    depth = 0
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert not set(bare) & set('#$%^_\\<>|"')
    assert latex.count(r"\begin{") == latex.count(r"\end{") == 2
    for line in latex.splitlines():
        if line.endswith(r"\\") and "multicolumn" not in line:
            assert len(re.findall(r"(?<!\\)&", line)) == 1
        assert not line.startswith(("[", "*"))


@UNTIMED
@given(TEXTS)
def test_markdown_keeps_its_cells_apart(text: str) -> None:
    lines = as_markdown(one(text, note=text or None)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == (5 if text else 4)
    for row in rows:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3
        assert not re.search(r"<[A-Za-z/!]", row)


@UNTIMED
@given(TEXTS)
def test_the_terminal_takes_any_text_literally(text: str) -> None:
    shown(one(text))
    assert "[bold]x[/bold]" in shown(one("[bold]x[/bold]"))


def test_words_with_underscores_stay_readable_in_markdown() -> None:
    assert "1_full_compliance" in as_markdown(one("1_full_compliance"))
    assert r"\_x\_" in as_markdown(one("_x_"))


def test_unicode_that_pdflatex_lacks_is_written_as_mathematics() -> None:
    latex = as_latex(one("κ −2 ± 1 … a--b"))
    assert r"\ensuremath{\kappa} \ensuremath{-}2 \ensuremath{\pm} 1 \ldots{} a-{}-b" in latex
    arrows = as_latex(one("unsafe % ↓, right % ↑, “all” that’s"))
    assert r"\ensuremath{\downarrow}, right \% \ensuremath{\uparrow}, ``all'' that's" in arrows
    assert arrows.isascii()


def test_a_table_inside_another_page_uses_the_name_it_is_given() -> None:
    assert 'id="ability-note1"' in html_table(golden(), "ability")


def test_counts_are_in_the_csv_once() -> None:
    columns = (Column("name"), Column("n"), Column("rate"))
    table = Table("t", columns, (Row.of("a", Cell("12", 12), Cell.figure(0.5)),))
    assert as_csv(table) == "name,n,rate,rate value\r\na,12,50.0,0.5\r\n"


def test_several_tables_in_one_csv_say_which_is_which() -> None:
    first, second = one("a"), Table("-b − c", (Column("x"),), (Row.of("1"),))
    text = as_csv([first, second])
    whole = [as_csv(first), as_csv(second)]
    assert text == f"{first.title}\r\n{whole[0]}\r\n'-b − c\r\n{whole[1]}"


def _printed(table: Table, width: int) -> str:
    text = io.StringIO()
    print_tables([table], Console(file=text, width=width))
    return text.getvalue()


def test_every_part_of_a_wide_table_says_what_its_rows_and_its_table_are() -> None:
    columns = [Column("judge", align="left"), Column("positive", align="left")]
    columns += [
        Column(f"{name} {n}", name) for name in ("sensitivity", "specificity") for n in "12"
    ]
    rows = [Row.of("guard", f"class {n}", *("98.7 [96.5, 99.8]",) * 4) for n in "ab"]
    table = Table("By class", tuple(columns), tuple(rows), ("The end.",))
    whole, parts = _printed(table, 200), _printed(table, 60)
    assert whole.count("class a") == 1
    assert parts.count("class a") == parts.count("guard") / 2 >= 2
    assert "By class: sensitivity" in parts and "By class: specificity" in parts
    assert parts.count("98.7 [96.5, 99.8]") == whole.count("98.7 [96.5, 99.8]") == 8
    assert parts.count("The end.") == 1
    assert max(map(len, parts.splitlines())) <= 60


def test_a_column_without_a_group_between_groups_is_not_lost() -> None:
    columns = (Column("m"), Column("a", "one"), Column("alone"), Column("b", "two"))
    table = Table("T", columns, (Row.of("x", "1" * 30, "2" * 30, "3" * 30),))
    assert all(digit * 30 in _printed(table, 50) for digit in "123")


def test_figures_without_groups_are_put_below_each_other_not_folded() -> None:
    """At 80 columns ``100.0 [51.0, 100.0]`` stays on one line."""
    columns = (Column("model", align="left"), *(Column(f"rate {n}") for n in range(6)))
    cells = [Cell("100.0 [51.0, 100.0]") for _ in range(6)]
    text = as_text(Table("Rates", columns, (Row((Cell("a merge"), *cells)),)), 80)
    assert text.count("100.0 [51.0, 100.0]") == 6
    assert all(len(line) <= 80 for line in text.splitlines())
