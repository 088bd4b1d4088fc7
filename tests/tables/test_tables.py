"""Tables say the same in every format, and no text in them can break one."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from safeswap.errors import OutputError
from safeswap.tables import (
    Cell,
    Column,
    Row,
    Table,
    as_csv,
    as_html,
    as_latex,
    as_latex_report,
    as_markdown,
    as_rich,
    html_table,
    names_of,
    plain,
    print_tables,
    spreadsheet_safe,
    write_reports,
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
    assert by_name[0]["MultiJail · sw value"] == "45.67"  # in per cent, as the text beside it
    assert by_name[0]["MultiJail · sw key"] == "base/multijail/sw"
    assert by_name[1]["MultiJail · te"] == "n/a"
    assert by_name[1]["MultiJail · te note"] == NOT_TELUGU
    assert [row["group"] for row in by_name] == ["inputs", "merges"]


def test_latex() -> None:
    assert as_latex(golden()) == LATEX


LATEX = r"""\begin{table}
\centering\footnotesize
\setlength{\tabcolsep}{4pt}
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
    assert as_csv(table) == "name,n,rate,rate value\r\na,12,50.0,50\r\n"


def test_a_csv_is_one_rectangle_whose_columns_are_told_apart(tmp_path: Path) -> None:
    """Several tables stood in one file, and readers keep one of two columns of a name."""
    columns = (Column("rate", align="left"), Column("rate"), Column("rate value"))
    twins = Table("A", columns, (Row.of("x", Cell.figure(0.07), "y"),), ("A note.",))
    other = Table("A", (Column("b"),), (Row.of("1"), Row.of("2", group="g")))
    written = write_reports([twins, other, golden()], tmp_path)
    names = [path.name for path in written if path.suffix == ".csv"]
    assert names == ["report-a.csv", "report-a-2.csv", "report-unsafe-right.csv"]
    for path in written:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                header, *rows = csv.reader(file)
            assert len(set(header)) == len(header) and rows
            assert {len(row) for row in rows} == {len(header)}
    (row,) = csv.DictReader((tmp_path / "report-a.csv").open(encoding="utf-8", newline=""))
    assert list(row.values()) == ["x", "7.0", "7", "y"]
    assert list(row) == ["rate", "rate (2)", "rate value", "rate value (2)"]


def test_names_that_a_file_system_takes() -> None:
    def name(title: str) -> str:
        return Table(title, (Column("a"),), ()).short_name

    assert name("a/b − ../c: %") == "a-b-..-c"
    assert name("…") == "table" and len(name("x" * 500)) == 60
    tables = [Table("Same", (Column("a"),), ()) for _ in range(3)]
    assert list(names_of(tables)) == ["same", "same-2", "same-3"]


FACTS = (("model m", "https://host/x <&> | 50 %\nnew line"), ("date", "2026-01-02 03:04 UTC"))


def test_every_report_says_what_it_is_of(tmp_path: Path) -> None:
    write_reports([golden()], tmp_path, title="T", facts=FACTS)
    markdown, latex, page = (
        (tmp_path / f"report.{end}").read_text(encoding="utf-8") for end in ("md", "tex", "html")
    )
    assert markdown.startswith(
        "# T\n\n- **model m**: https://host/x &lt;&amp;&gt; \\| 50 % new line"
    )
    assert "<dt>model m</dt><dd>https://host/x &lt;&amp;&gt; | 50 % new line</dd>" in page
    head = latex.partition(r"\begin{table}")[0].splitlines()
    assert head[1] == "% model m: https://host/x <&> | 50 % new line"
    assert all(line.startswith("%") or not line for line in head)


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


# As wide as a page --------------------------------------------------------------------------------

NAMES = st.text("abcxyz-_./", min_size=1, max_size=70)


@st.composite
def wide(draw: st.DrawFn) -> Table:
    """Some columns in some groups, names of any length, every figure different."""
    groups = draw(st.lists(st.sampled_from(["", "one", "two " * 6]), min_size=1, max_size=14))
    columns = [Column("model", align="left")]
    columns += [Column(f"c{n}", name) for n, name in enumerate(groups)]
    rows = [
        Row.of(name, *(Cell(f"{100 * r + n}.5 [51.0, 100.0]") for n in range(len(groups))))
        for r, name in enumerate(draw(st.lists(NAMES, min_size=1, max_size=60)), 1)
    ]
    return Table("T", tuple(columns), tuple(rows), ("The end.",))


def every_figure_once(table: Table, text: str) -> bool:
    cells = [cell.text for row in table.rows for cell in row.cells[1:]]
    return all(len(re.findall(rf"(?<!\d){re.escape(cell)}", text)) == 1 for cell in cells)


@UNTIMED
@given(wide())
def test_markdown_is_no_wider_than_a_page_and_loses_no_column(table: Table) -> None:
    text = as_markdown(table)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, rows)) <= 110
    assert every_figure_once(table, text.replace("\\[", "[").replace("\\]", "]"))
    words = text.replace("\\", "")
    assert all(row.cells[0].text in words for row in table.rows)  # whole, in a note at least
    assert text.count("The end.") == 1


@UNTIMED
@given(wide())
def test_latex_loses_no_column_and_no_row(table: Table) -> None:
    text = as_latex(table).replace("{[}", "[").replace("{]}", "]")
    assert every_figure_once(table, text) and text.count("The end.") == 1
    for part in text.split(r"\begin{table}")[1:]:
        heads, rows = part.partition(r"\midrule")[0], part.count("100.0] ")
        assert heads.count("& c") <= 4 and rows <= 4 * 50


@UNTIMED
@given(wide(), st.sampled_from([60, 80]))
def test_the_terminal_folds_no_figure(table: Table, width: int) -> None:
    text = as_text(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert every_figure_once(table, text)


def test_every_part_repeats_what_names_its_rows_without_groups_too() -> None:
    """The language of a row stood in the first part only."""
    columns = [Column("model", align="left"), Column("language", align="left")]
    columns += [Column(f"rate {n}") for n in range(5)]
    rows = [Row.of("m", code, *["100.0 [51.0, 100.0]"] * 5) for code in ("sw", "te")]
    text = as_text(Table("Rates", tuple(columns), tuple(rows)), 60)
    assert text.count("sw") == text.count("  te ") == text.count("\nmodel") > 1
    assert text.count(", continued") == text.count("\nmodel") - 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles_within_the_page(tmp_path: Path) -> None:
    long = "a-language-expert.of_all_eight/languages" * 2
    columns = [Column("model", align="left")]
    columns += [Column(f"l{n}", f"benchmark {n % 3}, unsafe % ↓") for n in range(24)]
    columns.sort(key=lambda column: column.group)
    rows = [Row.of(f"{long}{n}", *["100.0 [51.0, 100.0]"] * 24) for n in range(60)]
    words = (Column("a", align="left"), Column("n"), Column("reading", align="left"))
    said = "undecided: 12.3 points would have shown, or so it is said"
    second = Table("W" * 90, words, (Row.of(long, "1", said, group=long * 2),), (f"/{long * 3}",))
    tables = [Table("Rates", tuple(columns), tuple(rows)), second]
    text = as_latex_report(tables, "T", FACTS)
    (tmp_path / "all.tex").write_text(
        "\\documentclass[a4paper]{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\n"
        f"\\begin{{document}}\n{text}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-no-shell-escape", "all.tex"]
    log = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=90).stdout.decode(
        "utf-8", "replace"
    )
    assert "Output written" in log
    for trouble in ("\n!", "Overfull \\hbox", "too large for page"):
        assert trouble not in log, log[-3000:]


@pytest.mark.parametrize("file", ["report.md", "report.html", "report.tex", "report-t.csv"])
def test_no_part_of_a_report_is_written_through_a_link(tmp_path: Path, file: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / file).symlink_to(mine)
    with pytest.raises(OutputError, match="is a link"):
        write_reports([Table("T", (Column("a"),), (Row.of("1"),))], tmp_path / "out")
    assert mine.read_text() == "mine"


def test_a_report_made_again_removes_the_parts_of_the_earlier_one(tmp_path: Path) -> None:
    def table(name: str) -> Table:
        return Table("T", (Column("a"),), (Row.of("1"),), (), name)

    write_reports([table("kept"), table("gone"), table("linked")], tmp_path, figures={})
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "report-linked.csv").unlink()
    (tmp_path / "report-linked.csv").symlink_to(outside)
    (tmp_path / "report-mine.csv").write_text("of another's making")
    write_reports([table("kept")], tmp_path)
    left = {path.name for path in tmp_path.glob("*.csv")}
    assert left == {"report-kept.csv", "report-linked.csv", "report-mine.csv"}
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("listed", ["../report-x.csv", "notes.csv", "report-x.md", "report-x.csv/"])
def test_a_forged_list_removes_no_file_of_others(tmp_path: Path, listed: str) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    others = [tmp_path / "report-x.csv", folder / "notes.csv", folder / "report-x.md"]
    for path in others:
        path.write_text("mine")
    (folder / "report.md").write_text(f"<!-- files of this report: {listed} -->\n")
    write_reports([golden()], folder)
    assert all(path.read_text() == "mine" for path in others)
