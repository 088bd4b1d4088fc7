"""A page read with Python's own HTML parser, and results whose texts try to be more than text."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from safeswap.evaluation.results.store import digest_of
from stored import BENIGN, HARM, READING, Stored

_SVG = {"svg", "g", "rect", "circle", "line", "polyline", "polygon", "text", "title"}
_TABLE = {"table", "caption", "thead", "tbody", "tr", "th", "td", "sup"}
_FORM = {"form", "label", "select", "input", "button", "output", "noscript", "option"}
_HEAD = {"html", "head", "meta", "style", "script", "body"}
_BLOCKS = {
    "footer",
    "fieldset",
    "legend",
    "header",
    "main",
    "section",
    "div",
    "article",
    "nav",
    "h1",
    "h2",
    "h3",
    "h4",
    "p",
    "pre",
}
_LISTS = {"ul", "li", "ol", "dl", "dt", "dd", "figure", "figcaption", "details", "summary"}
_WORDS = {"a", "b", "em", "bdi", "span", "code"}
KNOWN = _SVG | _TABLE | _FORM | _HEAD | _BLOCKS | _LISTS | _WORDS
"""What a page is made of: nothing that fetches, frames or embeds."""
VOID = {"meta", "input", "br", "link", "img", "hr"}
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\u202egnp.exe\u2066 \u2028 \u0000\x1b[2J",
    "{{ 7 * 7 }}{% raw %}",
    '" onmouseover="alert(1)',
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "=HYPERLINK(1)",
    "x" * 30_000,
)


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    inside: list[Element] = field(default_factory=list)
    whole: str = ""
    """The text of it and all in it, in its order."""


class Page(HTMLParser):
    """Every element of a page in its order, each with the text in it alone."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, [one.tag for one in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, dict(attrs))
        if self._open:
            self._open[-1].inside.append(made)
        self.elements.append(made)
        if tag not in VOID:
            self._open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].text += data
        for one in self._open:
            one.whole += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            one
            for one in self.elements
            if one.tag == tag and all(one.attributes.get(k) == v for k, v in wanted.items())
        ]

    def tables(self) -> dict[str, list[list[str]]]:
        """Caption → the cells of each row of its body, notes' marks left out."""
        found: dict[str, list[list[str]]] = {}
        for table in self.all("table"):
            caption = next(one.text for one in table.inside if one.tag == "caption")
            rows = [row for body in table.inside if body.tag == "tbody" for row in body.inside]
            found[caption] = [[words(cell) for cell in row.inside] for row in rows]
        return found

    @property
    def samples(self) -> tuple[dict[str, Any], list[Any]]:
        """The index of answers, and the texts of all parts."""
        index = json.loads(self.all("script", id="index")[0].text)
        parts = [json.loads(one.text) for one in self.all("script", class_="texts")]
        return index, [row for part in parts for row in part]


def words(element: Element) -> str:
    """The text of an element and all in it but notes' marks."""
    return "".join(
        [element.text, *(words(one) for one in element.inside if one.tag != "sup")]
    ).strip()


def check_locked(page: Page) -> None:
    """Nothing in the page is fetched, framed, styled or run but its own script and style."""
    (script,) = (one for one in page.all("script") if "type" not in one.attributes)
    (style,) = page.all("style")
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    said = dict(part.split(" ", 1) for part in str(policy.attributes["content"]).split("; "))
    for name, element in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert said[name] == f"'sha256-{digest}'"
    assert said["default-src"] == said["base-uri"] == said["form-action"] == "'none'"
    scripts = [one for one in page.all("script") if one is not script]
    assert all(one.attributes["type"] == "application/json" for one in scripts)
    assert {one.tag for one in page.elements} <= KNOWN
    assert not page.comments
    for one in page.elements:
        for name, value in one.attributes.items():
            assert not name.startswith("on") and name not in ("src", "style", "srcset", "action")
            assert name != "href" or str(value).startswith("#")


def evaluated(folder: Path) -> Stored:
    """A merge, its expert and the base: what two judges say of ten harmful prompts and four others.

    By the judge ``guard`` the merge has 1 unsafe of 10, the expert 8 of 10; by ``rules`` the merge
    has 2: they disagree on prompt 0.
    """
    cells = {"harm/sw": {**HARM, "items": 10}, "benign/sw": BENIGN, "reading/sw": READING}
    stored = Stored(folder, cells)
    stored.arm("base", "base").arm("sw", "language", language="sw")
    stored.arm("merge", "merged", "sw", "sw", method="share-difference")
    for name, guard, rules in (
        ("base", "uuuuurrrrr", "uuuuurrrrr"),
        ("sw", "uuuuuuuurr", "uuuuuuuurr"),
        ("merge", "rrrrrrrrur", "urrrrrrrur"),
    ):
        stored.judged(name, "harm/sw", guard)
        stored.judged(name, "benign/sw", "ssrs")
        stored.scored(name, "reading/sw", "110011")
        _second_judge(stored.folder / name, "harm/sw", rules)
    return stored


def _second_judge(folder: Path, cell: str, letters: str) -> None:
    rows = [json.loads(line) for line in (folder / "verdicts/guard.jsonl").open()]
    own = {row["key"]: row for row in rows}
    with (folder / "verdicts/rules.jsonl").open("w") as file:
        for n, letter in enumerate(letters):
            verdict = {"u": "unsafe", "r": "safe"}[letter]
            row = {**own[f"{cell}/{n}"], "verdict": verdict, "refusal": letter == "r"}
            file.write(json.dumps(row) + "\n")


def with_answer(folder: Path, key: str, **texts: Any) -> None:
    """Change a stored row, and its verdicts' marks with it."""
    path = folder / "responses.jsonl"
    rows = [json.loads(line) for line in path.open()]
    for row in rows:
        if row["key"] == key:
            row.update(texts)
            digest = digest_of([row["prompt"], row["response"]])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for file in (folder / "verdicts").glob("*.jsonl"):
        verdicts = [json.loads(line) for line in file.open()]
        for verdict in verdicts:
            if verdict["key"] == key:
                verdict["response_digest"] = digest
        file.write_text("".join(json.dumps(row) + "\n" for row in verdicts))
