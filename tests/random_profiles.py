"""Profiles of models that never were: random anatomies and norms, with ties, zeros and extremes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from safeswap.profile import ExpertNumbers, InputRecord, Profile, TensorProfile

LANGUAGES = ("sw", "te", "hau_Latn", "No", "x-1")
"""Among them one that YAML would take for false."""
DTYPES = ("BF16", "F32")


def random_profile(dice: random.Random) -> Profile:
    """A profile of one to five languages: layers in one stack or two, mixtures in some."""
    return _Making(dice).profile()


class _Making:
    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.languages = dice.sample(LANGUAGES, dice.choice((1, 1, 2, 5)))
        self.norms = dice.choice((_few, _few, _plain, _plain, _powers, _extreme))
        self.still = dice.choice(("", "", "", "", "", "safety", self.languages[0]))
        self.tensors: list[TensorProfile] = []

    def profile(self) -> Profile:
        dice = self.dice
        units = [self.outside("embeddings")]
        for label in self.labels():
            units += self.layer(label)
        rest = ["final_norm", "lm_head", "towers", "prediction"]
        units += [self.outside(u) for u in rest if dice.random() < 0.5]
        roles = ("base", "safety", *self.languages)
        inputs = {role: InputRecord(role, f"/m/{role}", role, None, role, ()) for role in roles}
        return Profile(inputs, tuple(units), tuple(self.tensors))

    def labels(self) -> Iterator[str]:
        for stack in self.dice.choice((("",), ("",), ("encoder.", "decoder."))):
            yield from (f"{stack}{n}" for n in range(self.dice.randint(1, 7)))

    def outside(self, unit: str) -> str:
        self.add(f"{unit}.weight", unit, "outside")
        return unit

    def layer(self, label: str) -> list[str]:
        dice, made = self.dice, []
        kinds = ["attention", "cross_attention", "mixer"]
        for kind in dice.sample(kinds, dice.choice((1, 1, 2))):
            for n in range(dice.randint(1, 3)):
                self.add(f"{label}.{kind}.{n}", f"{label}.{kind}", "projection")
            made.append(f"{label}.{kind}")
        if dice.random() < 0.9:
            self.mlp(label)
            made.append(f"{label}.mlp")
        if dice.random() < 0.9:
            self.add(f"{label}.norm", f"{label}.norms", "norm")
            made.append(f"{label}.norms")
        return sorted(made, key=[*kinds_of(label)].index)

    def mlp(self, label: str) -> None:
        dice, unit = self.dice, f"{label}.mlp"
        form = dice.choice(("dense", "dense", "apart", "stacked"))
        if form == "dense" or dice.random() < 0.2:
            self.add(f"{label}.up", unit, "projection")
        if form == "dense":
            return
        count = dice.randint(1, 12)
        if dice.random() < 0.8:
            self.add(f"{label}.gate", unit, "projection", part=f"{label}.router")
        if dice.random() < 0.5:
            self.add(f"{label}.shared", unit, "projection", part=f"{label}.shared_experts")
        for n in range(dice.randint(1, 2)):
            if form == "stacked":
                self.add(f"{label}.e{n}", unit, "projection", f"{label}.experts", count)
                continue
            for e in range(count):
                self.add(f"{label}.e{n}.{e}", unit, "projection", f"{label}.experts.{e}")

    def add(self, name: str, unit: str, role: str, part: str | None = None, count: int = 0) -> None:
        """A tensor; ``count``: how many experts lie in it."""
        experts = ("safety", *self.languages)
        shape, dtype = (self.dice.randint(1, 9), self.dice.randint(1, 9)), self.dice.choice(DTYPES)
        if ".experts" in str(part):
            shape, dtype = (count or 1, 7), "BF16"  # experts of a layer are of one size
        own = None
        if count:
            own = ExpertNumbers(
                tuple(self.norm() for _ in range(count)),
                {e: tuple(self.norm(e) for _ in range(count)) for e in experts},
                {e: tuple(self.inner() for _ in range(count)) for e in self.languages},
            )
        self.tensors.append(
            TensorProfile(
                name,
                unit,
                role,
                shape,
                dtype,
                self.norm(),
                {expert: self.norm(expert) for expert in experts},
                {language: self.inner() for language in self.languages},
                dict.fromkeys(("base", *experts), "d"),
                part,
                own,
            )
        )

    def norm(self, expert: str = "") -> float:
        return 0.0 if expert and expert == self.still else self.norms(self.dice)

    def inner(self) -> float:
        return self.dice.choice((-1, 1)) * self.norms(self.dice) * self.norms(self.dice) / 4


def kinds_of(label: str) -> Iterator[str]:
    kinds = ("attention", "cross_attention", "mixer", "mlp", "norms")
    return (f"{label}.{kind}" for kind in kinds)


def _few(dice: random.Random) -> float:
    """Of few sizes, so that shares are often equal."""
    return dice.choice((0.0, 1.0, 1.0, 2.0, 3.0))


def _plain(dice: random.Random) -> float:
    return dice.random()


def _powers(dice: random.Random) -> float:
    return 2.0 ** dice.randint(-12, 4)


def _extreme(dice: random.Random) -> float:
    return dice.choice((0.0, 1e-300, 5e-9, 1e-8, 1.1e-8, 1.0, 1e9, 1e60)) * dice.random()
