"""Why gram-add works: the spectrum of its P in the small world, layer by layer, as a picture.

    python benchmarks/gram_spectrum.py [--out docs/gram-spectrum.png] [--balance 1] [--language qab]

P = G_h (G_h + γ G_b + λI)⁻¹ lets a direction of a layer's inputs through as far as harmful requests
excite it and harmless chats do not. Upper row: its eigenvalues, which lie between 0 and 1, for the
four kinds of inputs that a layer's matrices have. Lower row: how much of what the safety update
does to the outputs of these matrices (mean squares over tokens) is left after P, on four kinds of
chats. Two of them P was made from; the other two it never saw: harmful
requests *in the language*, about items that nobody was trained to refuse, and harmless chats in the
lead language. The matrices are those of ``gram_add.py``, the texts beside them drawn as those are.
The small world shows the mechanism, and is no evidence about large models.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from gram_add import FIRST_SEED, OPTIONS, calibrated, write_chats
from safetensors.numpy import load_file

import safeswap
from safeswap.demo import LEAD_LANGUAGE, default_world, models_folder
from safeswap.demo.documents import Document, safety_documents

mpl.use("agg")
import matplotlib.pyplot as plt

RIDGE = 1e-4
SEES = {
    "query, key, value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention output": ("self_attn.o_proj",),
    "gate, up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
TEXTS = {
    "harmful, lead language ($G_h$)": ("#b3261e", "o", True),
    "harmful, the language: never seen": ("#f0803c", "D", False),
    "harmless, lead language: never seen": ("#7fa6d6", "s", False),
    "harmless, the language ($G_b$)": ("#1d4e89", "o", True),
}
Array = np.ndarray


@dataclass(frozen=True)
class Seen:
    """One kind of inputs in one layer.

    Attributes:
        eigenvalues: of P, largest first.
        left: share of the safety update's squared effect that P leaves, per kind of texts.
    """

    eigenvalues: Array
    left: dict[str, float]


def unseen_requests(code: str) -> Iterator[Document]:
    """Harmful requests of the exam's items in a language, refused in it."""
    world = default_world()
    for form, item in itertools.product(range(3), world.items):
        if item.dangerous and not item.safety_trained:
            request = world.request(code, item, form)
            yield Document(request, world.refusal(code, form % 2))


def harmless_lead(seed: int) -> Iterator[Document]:
    """Harmless chats in the lead language, as the safety expert read them."""
    world = default_world()
    for document in safety_documents(world, FIRST_SEED + seed):
        if not world.is_refusal(document.response):
            yield document


def measured(out: Path, code: str, balance: float) -> dict[str, list[Seen]]:
    """Kind of inputs → layer by layer."""
    models = models_folder()
    made, beside = calibrated(out, 0), out / "beside"
    safeswap.calibrate(
        models / "base",
        safety=models / "safety",
        languages={code: models / code},
        harmful=write_chats(out / "unseen.jsonl", unseen_requests(code), 99),
        harmless={code: write_chats(out / "lead.jsonl", harmless_lead(0), 300)},
        out=beside,
        options=OPTIONS,
        force=True,
    )
    names = dict(zip(TEXTS, ((made, "harmful"), (beside, "harmful"), (beside, "harmless"),
                             (made, "harmless")), strict=True))  # fmt: skip
    grams = {text: _matrices(folder, f"{code}@{kind}") for text, (folder, kind) in names.items()}
    base, safety = (load_file(models / role / "model.safetensors") for role in ("base", "safety"))
    updates = {n: safety[n].astype("f8") - base[n].astype("f8") for n in base if ".layers." in n}
    found: dict[str, list[Seen]] = {kind: [] for kind in SEES}
    for layer, (kind, matrices) in itertools.product(range(6), SEES.items()):
        tensors = [f"model.layers.{layer}.{name}.weight" for name in matrices]
        found[kind].append(_seen([updates[n] for n in tensors], tensors[0], grams, balance))
    return found


def _matrices(folder: Path, entry: str) -> dict[str, Array]:
    records = json.loads((folder / "grams.json").read_text())["experts"][entry]["tensors"]
    stored = load_file(folder / f"{entry}.safetensors")
    return {name: stored[record["gram"]].astype("f8") for name, record in records.items()}


def _seen(
    updates: list[Array], tensor: str, grams: dict[str, dict[str, Array]], balance: float
) -> Seen:
    first, *_, last = TEXTS
    harmful, harmless = grams[first][tensor], grams[last][tensor]
    side = len(harmful)
    system = harmful + balance * harmless
    system += RIDGE * np.trace(system) / side * np.eye(side)
    lower = np.linalg.cholesky(system)
    half = np.linalg.solve(lower, harmful)  # P is similar to L⁻¹ G_h L⁻ᵀ, which is symmetric
    values = np.linalg.eigvalsh(np.linalg.solve(lower, half.T))[::-1]
    through = np.linalg.solve(system, harmful).T
    left = {}
    for text, of in grams.items():
        gram = of[tensor]
        whole = sum(float(np.sum((update @ gram) * update)) for update in updates)
        kept = sum(float(np.sum((t @ gram) * t)) for t in (update @ through for update in updates))
        left[text] = kept / whole
    return Seen(values, left)


def draw(found: dict[str, list[Seen]], out: Path, balance: float, code: str) -> None:
    """The picture."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 4, figsize=(11.5, 6.2), sharey="row", layout="constrained")
    for axis, (kind, layers) in zip(axes[0], found.items(), strict=True):
        _spectra(axis, kind, layers)
    axes[0, 0].set_ylabel("eigenvalue of P")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower left", handlelength=1.4)
    for axis, layers in zip(axes[1], found.values(), strict=True):
        _what_is_left(axis, layers)
    shares = [value for layers in found.values() for one in layers for value in one.left.values()]
    axes[1, 0].set_ylim(-3, 104 * max(shares))
    axes[1, 0].set_ylabel("of the safety update's effect,\nleft after P, %")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(
        r"What $P = G_h\,(G_h + \gamma G_b + \lambda I)^{-1}$ lets through "
        rf"(small world, {code}, $\gamma$ = {balance:g})",
        fontsize=11.5,
    )
    figure.savefig(out, dpi=130)


def _spectra(axis: Any, kind: str, layers: list[Seen]) -> None:
    side = len(layers[0].eigenvalues)
    shades = plt.get_cmap("viridis")(np.linspace(0.05, 0.88, len(layers)))
    for number, (one, shade) in enumerate(zip(layers, shades, strict=True)):
        places = np.arange(1, side + 1)
        axis.plot(places, one.eigenvalues, color=shade, lw=1.6, label=f"layer {number}")
    above = [int((one.eigenvalues > 0.5).sum()) for one in layers]
    axis.axhline(0.5, color="#999999", lw=0.8, ls=":")
    axis.set_title(
        f"inputs of {kind}\nabove ½: {min(above)} to {max(above)} of {side} directions",
        fontsize=9.5,
    )
    axis.set(xlabel="direction, by eigenvalue", xscale="log", xlim=(1, side), ylim=(-0.02, 1.02))
    ticks = [1, 3, 10, 30, 100]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()


def _what_is_left(axis: Any, layers: list[Seen]) -> None:
    for text, (colour, marker, made_from) in TEXTS.items():
        axis.plot(
            [100 * one.left[text] for one in layers],
            color=colour,
            marker=marker,
            ls="-" if made_from else "--",
            mfc=colour if made_from else "white",
            lw=1.4,
            ms=5.5,
            label=text,
        )
    axis.set(xlabel="layer", xticks=range(len(layers)))


def table(found: dict[str, list[Seen]]) -> Iterable[str]:
    """The figures in words, for the page."""
    for kind, layers in found.items():
        above = [int((one.eigenvalues > 0.5).sum()) for one in layers]
        traces = [float(one.eigenvalues.sum()) for one in layers]
        left = {text: np.mean([one.left[text] for one in layers]) for text in TEXTS}
        shares = "; ".join(
            f"{text.replace(chr(36), '')} {100 * value:.1f} %" for text, value in left.items()
        )
        yield (
            f"{kind}: above ½ {above}, trace {min(traces):.1f} to {max(traces):.1f} of "
            f"{len(layers[0].eigenvalues)}; left on average: {shares}"
        )


def main() -> None:
    """Calibrate, decompose, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/gram-spectrum.png"))
    parser.add_argument("--balance", type=float, default=1.0, help="γ")
    parser.add_argument("--language", default="qab")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measured(Path(scratch), chosen.language, chosen.balance)
    draw(found, chosen.out, chosen.balance, chosen.language)
    lead = f"lead language {LEAD_LANGUAGE}, language {chosen.language}, γ = {chosen.balance:g}"
    print("\n".join([lead, *table(found)]))


if __name__ == "__main__":
    main()
