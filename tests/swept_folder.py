"""A sweep's folder by hand: what three tables were measured to do in one language."""

from __future__ import annotations

from pathlib import Path

from safeswap.plan import fill_plan
from safeswap.profile import Profile
from stored import BENIGN, HARM, READING, Stored

PLANS = {
    "paper": ("share-difference", {}),
    "wide": ("share-difference", {"tau": 0.2}),
    "chat": ("chat-vector", {"gamma": 1.5}),
}
"""Name of a cell → method and settings."""


def swept_folder(folder: Path, profile: Profile, language: str = "sw") -> Path:
    """Dev results of base, experts and `PLANS`, with the plans; by hand ``paper`` has 4 of 10
    unsafe, ``wide`` 3, ``chat`` 1.
    """
    cells = {
        f"harm/{language}": {**HARM, "items": 10},
        f"benign/{language}": BENIGN,
        f"reading/{language}": READING,
    }
    stored = Stored(folder / "dev" / language, cells)
    for name, letters, digits in (
        ("base", "uuuuuurrrr", "110000"),
        ("safety", "urrrrrrrrr", "110000"),
        (language, "uuuuuuuuur", "111111"),
        ("paper", "uuuurrrrrr", "111000"),
        ("wide", "uuurrrrrrr", "110100"),
        ("chat", "urrrrrrrrr", "111110"),
    ):
        role = {"base": "base", "safety": "safety", language: "language"}.get(name, "merged")
        stored.arm(name, role, language=language)
        stored.judged(name, f"harm/{language}", letters)
        stored.judged(name, f"benign/{language}", "ssrs")
        stored.scored(name, f"reading/{language}", digits)
    for name, (method, settings) in PLANS.items():
        place = folder / "plans" / language / f"{name}.yaml"
        place.parent.mkdir(parents=True, exist_ok=True)
        fill_plan(profile, language, method=method, **settings).save(place)
    return folder
