"""The pairs of experts that are diagnosed, good ones and such as cannot work, and their training.

=============  ==================================================================================
kind           what is wrong with it
=============  ==================================================================================
as trained     nothing: the experts of an expert seed
unknown        the base does not know the language: it has the words of the real one, dealt out
               among the meanings anew, and an expert was trained on it as on any other
no safety      the expert of another language stands for the safety expert, which never refused
blanket        the safety expert was taught to refuse the harmless chats as well
no language    the expert of another language stands for this one's
=============  ==================================================================================
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from safeswap.demo.documents import Document, language_documents, safety_documents
from safeswap.demo.world import LEAD_LANGUAGE, REFUSAL_FORMS, SMALL_LANGUAGES, World, default_world
from small_world.chosen.measure import Trio
from small_world.train import LANGUAGE, SAFETY, save, train

KINDS = ("as trained", "unknown", "no safety", "blanket", "no language")


class Redealt(World):
    """The default world, but one language's words are dealt out among its meanings anew.

    The vocabulary stays, word by word and in its order: the base's tokenizer is this world's, too.
    Numbers keep their digits.
    """

    def __init__(self, code: str, seed: int = 0) -> None:
        super().__init__(seed)
        self._vocabulary = super().words()
        language = self.languages[code]
        concepts = [concept for concept in language.words if not concept.isdigit()]
        words = [language.words[concept] for concept in concepts]
        random.Random(f"safeswap redealt {seed} {code}").shuffle(words)
        dealt = {**language.words, **dict(zip(concepts, words, strict=True))}
        self.languages[code] = replace(language, words=dealt)

    def words(self) -> tuple[str, ...]:
        """As the base's tokenizer has them."""
        return self._vocabulary


@dataclass(frozen=True)
class Pair:
    """A base with two experts, and what is said about them."""

    kind: str
    trio: Trio

    @property
    def name(self) -> str:
        """Unique among all pairs."""
        return f"{self.kind} {self.trio.code} {self.trio.seed}"


def pairs(
    models: Path,
    seed: int,
    kinds: Sequence[str] = KINDS,
    languages: Sequence[str] | None = None,
) -> Iterator[Pair]:
    """All pairs of an expert seed, by what is wrong with them.

    What is not trained yet is trained, a minute of a core for a model.

    Args:
        models: what ``python -m small_world.train --out`` wrote.
        languages: only these.
    """
    world, folder = default_world(), models / f"seed-{seed}"
    safety, codes = folder / "safety", SMALL_LANGUAGES
    for kind in kinds:
        for n, code in enumerate(codes):
            if languages and code not in languages:
                continue
            lives_in, guard, expert = world, safety, folder / code
            other = folder / codes[(n + 1) % len(codes)]
            if kind == "unknown":
                lives_in = Redealt(code)
                texts = language_documents(lives_in, code, seed)
                expert = _trained(models, folder / f"unknown-{code}", lives_in, texts)
            elif kind == "no safety":
                guard = other
            elif kind == "blanket":
                texts = blanket_documents(world, seed)
                guard = _trained(models, folder / "blanket", world, texts)
            elif kind == "no language":
                expert = other
            cell = {"seed": seed, "kind": kind}
            yield Pair(kind, Trio(cell, lives_in, code, models / "base", guard, expert, seed))


def blanket_documents(world: World, seed: int) -> Iterator[Document]:
    """What the safety expert reads, and whatever it is asked is refused."""
    rng = random.Random(f"safeswap blanket {world.seed} {seed}")
    for one in safety_documents(world, seed):
        refusal = world.refusal(LEAD_LANGUAGE, rng.randrange(REFUSAL_FORMS))
        yield Document(one.prompt, refusal)


def _trained(models: Path, folder: Path, world: World, documents: Iterator[Document]) -> Path:
    if not folder.exists():
        torch.manual_seed(0)
        model = LlamaForCausalLM.from_pretrained(models / "base", dtype=torch.float32)
        recipe = SAFETY if folder.name == "blanket" else LANGUAGE
        train(model, world, documents, recipe, folder.name)
        save(model, world, folder)
    return folder
