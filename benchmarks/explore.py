"""How fast is the page of `safeswap explore`: first paint, and an answer to a slider?

    python benchmarks/explore.py [--layers 126] [--languages 4] [--experts 0] [--moves 100]

Makes a profile of that shape, writes the page, and opens it from the disk in Chromium (Debian's,
by Playwright, the extra `browser`). Paint is what the browser itself says (first contentful
paint); ready is when the first plans stand on the page. An answer lasts from the moved slider to
the end of the next frame, drawn. Prints medians, the slowest, and the limits of issue 13.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from safeswap.profile import InputRecord, Profile, TensorProfile
from safeswap.report.explore import write_explorer

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PAINT, ANSWER = 1000.0, 50.0
"""Limits in milliseconds."""
PAINTED = """() => new Promise(done => {
  const said = list => done(list[0].startTime);
  const known = performance.getEntriesByName("first-contentful-paint");
  if (known.length) return said(known);
  new PerformanceObserver(list => said(list.getEntries())).observe({type: "paint"});
})"""
MOVED = """async ([name, value]) => {
  const range = document.getElementById(name);
  await new Promise(requestAnimationFrame);
  const start = performance.now();
  range.value = value;
  range.dispatchEvent(new Event("input", {bubbles: true}));
  document.body.getBoundingClientRect();
  const ran = performance.now() - start;
  await new Promise(done => requestAnimationFrame(() => {
    const channel = new MessageChannel();  // runs once the frame is drawn
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  }));
  return [ran, performance.now() - start];
}"""


def made(layers: int, languages: int, experts: int) -> Profile:
    """A profile of random updates in the shape of Llama 3.1 405B, or of a mixture."""
    dice = random.Random(0)
    spoken = [f"l{n}" for n in range(languages)]
    roles = ("base", "safety", *spoken)
    tensors: list[TensorProfile] = []

    def add(name: str, unit: str, role: str, part: str | None = None) -> None:
        update = {one: dice.uniform(0.01, 0.05) for one in roles[1:]}
        inner = {one: dice.uniform(-1, 1) * 1e-4 for one in spoken}
        digests = dict.fromkeys(roles, "0" * 64)
        tensors.append(
            TensorProfile(
                name, unit, role, (16384, 16384), "BF16", 1.0, update, inner, digests, part
            )
        )

    units = ["embeddings"]
    add("embed", "embeddings", "outside")
    for layer in range(layers):
        for name in "qkvo":
            add(f"{layer}.{name}", f"{layer}.attention", "projection")
        for expert in range(experts):
            part = f"{layer}.experts.{expert}"
            add(f"{layer}.e{expert}", f"{layer}.mlp", "projection", part)
        if experts:
            add(f"{layer}.gate", f"{layer}.mlp", "projection", f"{layer}.router")
        for name in () if experts else ("gate", "up", "down"):
            add(f"{layer}.{name}", f"{layer}.mlp", "projection")
        add(f"{layer}.norm", f"{layer}.norms", "norm")
        units += [f"{layer}.attention", f"{layer}.mlp", f"{layer}.norms"]
    add("norm", "final_norm", "outside")
    inputs = {role: InputRecord(role, role, role, None, role, ()) for role in roles}
    return Profile(inputs, (*units, "final_norm"), tuple(tensors))


def opened(browser: Any, page_file: Path) -> tuple[Any, float, float]:
    """A fresh page, and the milliseconds until its first paint and until it is ready."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready]")
    ready = page.evaluate("performance.getEntriesByName('safeswap-ready')[0].startTime")
    return page, page.evaluate(PAINTED), ready


def line(what: str, times: list[float], limit: float | None) -> str:
    said = f"{what:<44} {statistics.median(times):7.1f} {max(times):9.1f}"
    return said + ("" if limit is None else f" {limit:8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=126)
    parser.add_argument("--languages", type=int, default=4)
    parser.add_argument("--experts", type=int, default=0)
    parser.add_argument("--moves", type=int, default=100)
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright

    profile = made(asked.layers, asked.languages, asked.experts)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        start = time.perf_counter()
        file = write_explorer(profile, Path(folder) / "explore.html")
        wrote = 1000 * (time.perf_counter() - start)
        print(
            f"{asked.layers} layers, {asked.languages} languages, {asked.experts} experts a layer"
        )
        print(f"written in {wrote:.0f} ms, {file.stat().st_size / 1e6:.2f} MB")
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        paints, readies = [], []
        for _ in range(asked.runs):
            page, paint, ready = opened(browser, file)
            paints.append(paint)
            readies.append(ready)
            page.close()
        print(f"{'milliseconds':<44} {'median':>7} {'slowest':>9} {'limit':>8}")
        print(line("first contentful paint", paints, PAINT))
        print(line("ready", readies, None))
        page = opened(browser, file)[0]
        if asked.experts:
            page.get_by_role("radio", name="experts").check()
        for name in ("tau", "alpha"):
            high = float(page.locator(f"#{name}").get_attribute("max"))
            dice = random.Random(name)
            found = [page.evaluate(MOVED, [name, dice.random() * high]) for _ in range(asked.moves)]
            print(line(f"{name}: script, style and layout", [one[0] for one in found], None))
            print(line(f"{name}: to the end of the next frame", [one[1] for one in found], ANSWER))
        browser.close()


if __name__ == "__main__":
    main()
