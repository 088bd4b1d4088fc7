"""What a sweep would read, said without reading weights."""

from __future__ import annotations

from pathlib import Path

import yaml

from plain_adapter import write_adapter
from safeswap.search.outlook import search_outlook, sweep_outlook
from safeswap.search.search import read_search
from safeswap.search.sweep_config import read_sweep


def test_adapters_stand_where_the_sweep_s_file_puts_them(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    write_adapter(tmp_path / "lora", trio["base"])
    rows = "".join(f"{n},test,[],maji {n}\n" for n in range(12))
    (tmp_path / "harm.csv").write_text(f"id,source,tags,sw\n{rows}")
    (tmp_path / "suite.yaml").write_text("benchmarks:\n  harm: {prompts: harm.csv}\n")
    (tmp_path / "rules.yaml").write_text("default: unsafe\nrules: []\n")
    content = {
        "base": str(trio["base"]),
        "safety": str(trio["safety"]),
        "languages": {"sw": str(trio["sw"])},
        "adapters": {"sw": str(tmp_path / "lora")},
        "suite": "suite.yaml",
        "judge": "rule:rules.yaml",
        "grid": [{"method": "gated", "gamma": 0.5}],
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(content))
    search = tmp_path / "search.yaml"
    search.write_text(yaml.safe_dump({k: v for k, v in content.items() if k != "grid"}))
    for record in (
        sweep_outlook(read_sweep(file), tmp_path / "out"),
        search_outlook(read_search(search), tmp_path / "out", 3),
    ):
        sources = {one["role"]: one["source"] for one in record["checkpoints"]}
        assert sources["sw"] == f"{tmp_path / 'lora'} on {trio['sw']}"
        assert sources["safety"] == str(trio["safety"])
