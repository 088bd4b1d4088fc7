"""What the sample browser shows: questions with every model's answer and each judge's verdict.

Two passes, so that memory goes by what is shown and not by the size of the answers: the first
reads verdicts and decides, the second takes the texts of what was chosen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from safeswap.display import visible
from safeswap.evaluation.backends.thoughts import apart
from safeswap.evaluation.judges import MAJORITY, Verdict, counts_unsafe
from safeswap.evaluation.measures import Measure, read_measure
from safeswap.evaluation.results.rows import ModelRecord, VerdictRow
from safeswap.evaluation.results.store import (
    SETTINGS,
    Results,
    join_settings,
    open_results,
    read_responses,
    read_verdicts,
)
from safeswap.evaluation.results.verdicts import THOUGHT, mark_of, verdicts_of, verdicts_path
from safeswap.report.comparison import role_of

CHUNK = 100
"""Questions whose texts are one part of the page: it reads a part when it is looked at."""
LONGEST = 20_000
"""Letters of a text in the page; the results folder has the rest."""


class _Said(NamedTuple):
    """What the page tells of a verdict: few words, for there may be hundreds of thousands."""

    verdict: Verdict
    refusal: bool | None
    flags: tuple[str, ...]
    categories: tuple[str, ...]

    @classmethod
    def of(cls, row: VerdictRow) -> _Said:
        """Of a row, each word held once."""
        flags = tuple(map(sys.intern, row["flags"]))
        categories = tuple(sys.intern(str(name)) for name in row["categories"])
        return cls(cast(Verdict, sys.intern(row["verdict"])), row["refusal"], flags, categories)


@dataclass
class _Question:
    """What is known of a question before its texts are read."""

    key: str
    benchmark: str
    language: str
    id: str
    tags: tuple[str, ...]
    said: dict[str, dict[str, _Said]] = field(default_factory=dict)
    """Model → judge → verdict; a model that answered and was not judged has an empty table."""


def sample(groups: Sequence[Sequence[Path]], count: int, strict: bool = True) -> dict[str, Any]:
    """Questions of results folders, as plain values for the page.

    Args:
        groups: folders that stand in one table each.
        count: of questions in all; each group gets its part, the first ones what is left over.
        strict: whether "controversial" counts as unsafe, for what is discordant.

    Returns:
        ``groups`` (models, their roles, judges), ``rows`` (a list per question: group, benchmark,
        language, id, tags, discordant, numbers of the models on whose answers judges disagree,
        harmful, verdicts), ``chunks`` (lists of prompt, reference and answers, in the order of the
        rows, ``CHUNK`` in each) and ``of`` (how many questions there are). Questions where a merge
        and its reference differ come first, then those where judges disagree, then the rest;
        within these, benchmarks and languages take turns. Texts are harmless to show: control
        characters and marks that turn the direction of writing are written out.

    Raises:
        EvaluationError: a damaged results folder.
    """
    about: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    texts: list[list[Any]] = []
    total = 0
    for number, group in enumerate(groups):
        found = _Group([open_results(folder) for folder in group], strict)
        total += len(found.questions)
        left = len(groups) - number
        chosen = found.chosen(-(-(count - len(rows)) // left))
        about.append(found.about())
        rows += [[number, *found.row(question)] for question in chosen]
        texts += found.texts(chosen)
    chunks = [texts[n : n + CHUNK] for n in range(0, len(texts), CHUNK)]
    return {"groups": about, "rows": rows, "chunks": chunks, "chunk": CHUNK, "of": total}


class _Group:
    """The results folders of one table."""

    def __init__(self, opened: Sequence[Results], strict: bool) -> None:
        self.strict = strict
        self.homes = {model: results for results in opened for model in results.models}
        self.records = {model: home.model(model) for model, home in self.homes.items()}
        self.judges = sorted({judge for results in opened for judge in results.judges()})
        settings = opened[0].settings
        for other in opened[1:]:
            settings = join_settings(settings, other.settings, str(opened[0].folder), "the other")
        self.measures = {
            cell: read_measure(str(value.get("measures", Measure.ACCURACY)), SETTINGS)
            for cell, value in settings["cells"].items()
        }
        self.questions: dict[str, _Question] = {}
        for model, home in self.homes.items():
            self._read(model, home)

    def _read(self, model: str, home: Results) -> None:
        marks: dict[str, str] = {}
        for row in read_responses(home.folder / model):
            known = self.questions.get(row["key"])
            if known is None:
                tags = tuple(map(str, row.get("tags", ())))
                known = _Question(row["key"], row["benchmark"], row["language"], row["id"], tags)
                self.questions[row["key"]] = known
            known.said[model] = {}
            marks[row["key"]] = mark_of(row)
        for judge in self.judges:
            path = verdicts_path(home, model, judge)
            if judge != MAJORITY and not path.is_file():
                continue
            if judge == MAJORITY or judge.endswith(THOUGHT):  # its marks are of thoughts
                verdicts: Iterable[VerdictRow] = verdicts_of(home, model, judge).values()
            else:
                rows = read_verdicts(path)
                verdicts = (v for v in rows if marks.get(v["key"]) == v["response_digest"])
            for verdict in verdicts:
                self.questions[verdict["key"]].said[model][judge] = _Said.of(verdict)

    def about(self) -> dict[str, Any]:
        """What the page says of the group: models with their roles, judges, languages."""
        names = [results.folder.name for results in dict.fromkeys(self.homes.values())]
        models = [[visible(name), role_of(one)] for name, one in self.records.items()]
        return {"name": visible(", ".join(names)), "models": models, "judges": self.judges}

    def chosen(self, count: int) -> list[_Question]:
        """The first ``count``, those first that a reader learns most from."""
        ranks: dict[int, dict[str, list[_Question]]] = {0: {}, 1: {}, 2: {}}
        for question in self.questions.values():
            rank = 0 if self.discordant(question) else 1 if self.disagreeing(question) else 2
            ranks[rank].setdefault(self._cell(question), []).append(question)
        found: list[_Question] = []
        for cells in ranks.values():
            found += _in_turns(cells.values(), count - len(found))
        return found

    def row(self, question: _Question) -> list[Any]:
        """A question for the page's lists, without its texts."""
        verdicts = [self._verdicts(question.said.get(model)) for model in self.homes]
        return [
            visible(question.benchmark),
            visible(question.language),
            visible(question.id),
            [visible(tag) for tag in question.tags],
            int(self.discordant(question)),
            [n for n, model in enumerate(self.homes) if self._disputed(question, model)],
            int(self._measure(question) is Measure.UNSAFE),
            verdicts,
        ]

    def _verdicts(self, said: Mapping[str, _Said] | None) -> list[Any]:
        """A verdict per judge (None where there is none): word, refusal, flags, categories."""
        if said is None:
            return []
        found = [said.get(judge) for judge in self.judges]
        return [
            verdict
            and [
                verdict.verdict,
                verdict.refusal,
                [visible(flag) for flag in verdict.flags],
                [visible(name) for name in verdict.categories],
            ]
            for verdict in found
        ]

    def texts(self, chosen: Sequence[_Question]) -> list[list[Any]]:
        """Prompt, reference, and per model answer, thought and how it ended; None where none."""
        wanted = {question.key: n for n, question in enumerate(chosen)}
        found: list[list[Any]] = [["", "", [None] * len(self.homes)] for _ in chosen]
        for number, (model, home) in enumerate(self.homes.items()):
            for row in read_responses(home.folder / model):
                if row["key"] not in wanted:
                    continue
                own = found[wanted[row["key"]]]
                own[0] = own[0] or shown(row["prompt"])
                own[1] = own[1] or shown(row.get("reference", ""))
                answer, thought = apart(row["response"])
                thought = row.get("thought") or thought
                own[2][number] = [shown(answer), shown(thought or ""), row["finish_reason"]]
        return found

    def discordant(self, question: _Question) -> bool:
        """Whether some judge tells a merge and its reference apart; without such a pair, any two
        models.
        """
        pairs = [
            (model, str(one["reference"]))
            for model, one in self.records.items()
            if _reference(one) in question.said and model in question.said
        ]
        for judge in self.judges:
            if judge.endswith(THOUGHT):
                continue
            outcomes = {
                model: self._outcome(question, said[judge])
                for model, said in question.said.items()
                if judge in said
            }
            if not pairs and len({o for o in outcomes.values() if o is not None}) > 1:
                return True
            for one, other in pairs:
                both = {outcomes.get(one), outcomes.get(other)}
                if len(both - {None}) > 1:
                    return True
        return False

    def disagreeing(self, question: _Question) -> bool:
        """Whether two judges say different things of one answer."""
        return any(self._disputed(question, model) for model in question.said)

    def _disputed(self, question: _Question, model: str) -> bool:
        """Whether two judges say different things of a model's answer."""
        outcomes = {
            self._outcome(question, verdict)
            for judge, verdict in question.said.get(model, {}).items()
            if not judge.endswith(THOUGHT)
        }
        return len(outcomes - {None}) > 1

    def _outcome(self, question: _Question, verdict: _Said) -> bool | None:
        if self._measure(question) is Measure.OVER_REFUSAL:
            return verdict.refusal
        return counts_unsafe(verdict.verdict, self.strict)

    def _measure(self, question: _Question) -> Measure | None:
        return self.measures.get(self._cell(question))

    def _cell(self, question: _Question) -> str:
        return f"{question.benchmark}/{question.language}"


def _reference(record: ModelRecord) -> str:
    return str(record.get("reference", "")) if role_of(record) == "merged" else ""


def _in_turns(cells: Iterable[Sequence[_Question]], count: int) -> list[_Question]:
    """One of each cell after another, so that few questions are of all benchmarks."""
    waiting = [iter(cell) for cell in cells]
    found: list[_Question] = []
    while waiting and len(found) < count:
        for questions in [*waiting]:
            question = next(questions, None)
            if question is None:
                waiting.remove(questions)
            elif len(found) < count:
                found.append(question)
    return found


def shown(text: str) -> str:
    """A text for the page: nothing in it is obeyed, and a very long one is cut."""
    harmless = visible(text)
    if len(harmless) <= LONGEST:
        return harmless
    return f"{harmless[:LONGEST]} … ({len(harmless) - LONGEST} more letters in the results folder)"
