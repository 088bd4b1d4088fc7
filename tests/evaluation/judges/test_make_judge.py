"""make_judge: the judge that a name, a folder or a kind stands for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safeswap.errors import EvaluationError
from safeswap.evaluation.judges import (
    KINDS,
    Judge,
    LlamaGuardJudge,
    ModelJudge,
    NemotronGuardJudge,
    PanelJudge,
    PolyGuardJudge,
    Qwen3GuardJudge,
    RowJudge,
    RuleJudge,
    SafeguardJudge,
    ShieldGemmaJudge,
    ThreeWayJudge,
    VoteJudge,
    make_judge,
)

RULES = "default: unsafe\nrules: [{exact: x, verdict: safe}]\n"
TEXT_TEMPLATE = "{% for m in messages %}{{ m['role'] + m['content'].strip() }}{% endfor %}"
PARTS_TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ c['text'] }}{% endfor %}{% endfor %}"
)


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3Guard-Gen-0.6B",
        "Qwen/Qwen3Guard-Gen-4B",
        "qwen/qwen3guard-gen-8b",
        "Qwen3Guard-Gen-4B-FP8",
        "Qwen/Qwen3Guard-4B-Gen",
    ],
)
def test_qwen3guard_by_name(name: str) -> None:
    assert isinstance(make_judge(name), Qwen3GuardJudge)


@pytest.mark.parametrize(
    ("name", "parts", "prompted"),
    [
        ("meta-llama/Llama-Guard-3-8B", False, False),
        ("meta-llama/Llama-Guard-3-8B-INT8", False, False),
        ("meta-llama/Llama-Guard-3-1B", True, False),
        ("meta-llama/Llama-Guard-3-11B-Vision", True, False),
        ("meta-llama/Llama-Guard-4-12B", True, True),
        ("llama-guard3:8b", False, False),
    ],
)
def test_llama_guard_by_name(name: str, parts: bool, prompted: bool) -> None:
    assert make_judge(name) == LlamaGuardJudge(parts, prompted)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ToxicityPrompts/PolyGuard-Qwen", PolyGuardJudge),
        ("ToxicityPrompts/PolyGuard-Qwen-Smol", PolyGuardJudge),
        ("toxicityprompts/polyguard-ministral", PolyGuardJudge),
        ("nvidia/Llama-3.1-Nemotron-Safety-Guard-8B-v3", NemotronGuardJudge),
        ("nvidia/llama-3_1-nemotron-safety-guard-8b-v3", NemotronGuardJudge),
        ("nvidia/Llama-3.1-Nemotron-Safety-Guard-Multilingual-8B-v1", NemotronGuardJudge),
        ("nvidia/llama-3.1-nemoguard-8b-content-safety", NemotronGuardJudge),
        ("openai/gpt-oss-safeguard-20b", SafeguardJudge),
        ("openai/gpt-oss-safeguard-120b", SafeguardJudge),
        ("gpt-oss-safeguard:20b", SafeguardJudge),
        ("google/shieldgemma-2b", ShieldGemmaJudge),
        ("google/shieldgemma-9b", ShieldGemmaJudge),
        ("shieldgemma:27b", ShieldGemmaJudge),
    ],
)
def test_guards_of_more_families_by_name(name: str, kind: type) -> None:
    assert isinstance(make_judge(name), kind)


def _folder(path: Path, template: str | None = None, **config: str) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    if template is not None:
        (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return path


def test_a_folder_is_known_by_its_config_its_name_or_its_place_in_a_hub_cache(
    tmp_path: Path,
) -> None:
    told = _folder(tmp_path / "guard", _name_or_path="Qwen/Qwen3Guard-Gen-4B")
    assert isinstance(make_judge(str(told)), Qwen3GuardJudge)
    named = _folder(tmp_path / "Qwen3Guard-Gen-0.6B")
    assert isinstance(make_judge(str(named)), Qwen3GuardJudge)
    cached = _folder(tmp_path / "models--Qwen--Qwen3Guard-Gen-4B" / "snapshots" / "0123abc")
    assert isinstance(make_judge(str(cached)), Qwen3GuardJudge)


def test_a_folder_is_not_known_by_the_folders_above_it(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "qwen3guard-gen-study" / "checkpoint")
    with pytest.raises(EvaluationError, match="kind 'threeway'"):
        make_judge(str(folder))
    assert isinstance(make_judge(str(folder), kind="qwen3guard"), Qwen3GuardJudge)


def test_a_local_chat_template_decides_the_form_of_messages(tmp_path: Path) -> None:
    parts = _folder(tmp_path / "Llama-Guard-3-8B", PARTS_TEMPLATE)
    assert make_judge(str(parts)) == LlamaGuardJudge(parts=True)
    text = _folder(tmp_path / "Llama-Guard-3-1B", TEXT_TEMPLATE)
    assert make_judge(str(text)) == LlamaGuardJudge(parts=False)
    (text / "chat_template.jinja").write_text(PARTS_TEMPLATE)
    assert make_judge(str(text)) == LlamaGuardJudge(parts=True)


def test_damaged_files_in_a_folder_do_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / "Llama-Guard-4-12B"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"\xff{")
    (folder / "tokenizer_config.json").write_text("[1]")
    assert make_judge(str(folder)) == LlamaGuardJudge(parts=True, add_generation_prompt=True)


def test_a_kind_goes_before_the_name() -> None:
    assert isinstance(make_judge("gpt-4o", kind="threeway"), ThreeWayJudge)
    assert isinstance(make_judge("Qwen/Qwen3Guard-Gen-4B", kind="threeway"), ThreeWayJudge)
    assert isinstance(make_judge("my-guard", kind="qwen3guard"), Qwen3GuardJudge)
    assert make_judge("my-guard", kind="llamaguard") == LlamaGuardJudge(parts=True)


def test_rules_in_three_ways(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    judges = [
        make_judge(f"rule:{path}"),
        make_judge(str(path), kind="rule"),
        make_judge("rule", kind="rule", rules=path),
    ]
    assert all(isinstance(judge, RuleJudge) for judge in judges)
    assert len({judge.version for judge in judges}) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Qwen/Qwen3Guard-Stream-4B", "no Qwen3Guard-Gen"),
        ("meta-llama/Meta-Llama-Guard-2-8B", "no Llama Guard 3 or 4"),
        ("meta-llama/LlamaGuard-7b", "no Llama Guard 3 or 4"),
        ("google/shieldgemma-2-4b-it", "no ShieldGemma for texts"),
        ("Jayveersinh-Raj/PolyGuard", "none of PolyGuard's three models"),
        ("nvidia/Nemotron-Content-Safety-Reasoning-4B", "another line of NVIDIA's guards"),
        ("nvidia/Nemotron-3-Content-Safety", "another line of NVIDIA's guards"),
        ("nvidia/Aegis-AI-Content-Safety-LlamaGuard-Defensive-1.0", "no Llama Guard 3 or 4"),
        ("nvidia/llama-3.1-nemoguard-8b-topic-control", "another line of NVIDIA's guards"),
        ("openai/gpt-oss-20b", "did you mean 'openai/gpt-oss-safeguard-20b'"),
        ("google/sheildgemma-9b", "did you mean 'google/shieldgemma-9b'"),
        ("ToxicityPrompts/PloyGuard-Qwen", "did you mean 'ToxicityPrompts/PolyGuard-Qwen'"),
        ("Qwen/Qwen3Gaurd-Gen-4B", "did you mean 'Qwen/Qwen3Guard-Gen-4B'"),
        ("meta-llama/Llama-3.1-8B-Instruct", "kind 'threeway'"),
        ("gpt-4o", "kind 'threeway'"),
        ("", "kind 'threeway'"),
    ],
)
def test_an_unknown_judge_is_refused_with_what_to_do(name: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        make_judge(name)


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="did you mean 'threeway'"):
        make_judge("gpt-4o", kind="3way")
    with pytest.raises(EvaluationError, match="twice"):
        make_judge("rule:a.yaml", rules=tmp_path)
    with pytest.raises(EvaluationError, match="kind 'rule'"):
        make_judge("Qwen/Qwen3Guard-Gen-4B", rules=tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_judge(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    judge: Judge = make_judge("a,b,c" if kind == "majority" else str(path), kind=kind)
    assert judge.name == kind
    assert judge.version.startswith(kind)
    assert judge.asks_model is KINDS[kind].asks_model is (kind not in ("rule", "majority"))
    forms = [ModelJudge, PanelJudge] if judge.asks_model else [RowJudge, VoteJudge]
    assert sum(isinstance(judge, form) for form in forms) == 1
    assert KINDS[kind].summary.endswith((".", "?"))
