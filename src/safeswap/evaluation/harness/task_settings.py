"""Which of lm-eval's task settings a suite may give: those that are data.

lm-eval takes code in many places of a task (functions, classes, other files, metrics and datasets
that are fetched as scripts), for it trusts whoever writes one. A suite is a file that somebody may
have sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lm_eval.api.registry import filter_registry, metric_registry

from safeswap.checkpoint.inside import is_plain_name
from safeswap.errors import EvaluationError, nearest

_TEXTS = (
    *("task_alias", "description", "doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix"),
    *("target_delimiter", "fewshot_delimiter", "doc_to_decontamination_query"),
    *("training_split", "validation_split", "test_split", "fewshot_split", "dataset_name"),
)
_OTHERS = (
    *("output_type", "generation_kwargs", "metric_list", "filter_list", "repeats", "num_fewshot"),
    *("metadata", "should_decontaminate", "fewshot_config", "dataset_path", "dataset_kwargs"),
)
_CODE = (
    *("process_docs", "process_results", "custom_dataset", "class", "use_prompt", "include"),
    *("unsafe_code", "doc_to_image", "doc_to_audio"),
)
_DATASET = ("data_files", "data_dir", "revision", "field")
_FEWSHOT = ("sampler", "split", "samples", "fewshot_indices", *_TEXTS)
_DATASET_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_METRIC = (
    *("metric", "aggregation", "higher_is_better", "ignore_case", "ignore_punctuation"),
    *("ignore_numbers", "regexes_to_ignore", "multi_label", "hf_evaluate"),
)


def check_settings(settings: Mapping[str, Any], where: str) -> None:
    """Refuse settings of a task that are more than data; nothing of the task is loaded.

    Args:
        where: whose they are, for messages.

    Raises:
        EvaluationError: a setting that would run code or lead elsewhere, or an unknown one.
    """
    known = (*_TEXTS, *_OTHERS)
    for key, value in settings.items():
        if key in _CODE:
            raise EvaluationError(
                f"{where}: {key} makes lm-eval run code or read other files, and a suite is data. "
                "Leave it out; a task with code of its own belongs into lm-eval."
            )
        if key not in known:
            raise EvaluationError(f"{where}: unknown setting {key!r}{nearest(key, known)}")
        if key in _TEXTS and not _is_plain(value):
            raise EvaluationError(f"{where}: {key} is text, a number or a list of texts.")
    _check_dataset(settings, where)
    _check_metrics(settings.get("metric_list"), where)
    _check_filters(settings.get("filter_list"), where)
    fewshot = settings.get("fewshot_config") or {}
    if not isinstance(fewshot, Mapping) or any(key not in _FEWSHOT for key in fewshot):
        raise EvaluationError(f"{where}: fewshot_config has the keys {', '.join(_FEWSHOT)}.")


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    values = value if isinstance(value, list) else [value]
    return all(one is None or isinstance(one, (str, int, float)) for one in values)


def _check_dataset(settings: Mapping[str, Any], where: str) -> None:
    path = settings.get("dataset_path")
    if path is not None and not (isinstance(path, str) and _DATASET_ID.fullmatch(path)):
        raise EvaluationError(
            f"{where}: dataset_path {str(path)[:80]!r} is no dataset's id (org/name). For a file "
            "of your own say file: NAME beside task:."
        )
    if path is not None and ".." in path.split("/"):
        raise EvaluationError(f"{where}: dataset_path {path!r} leads elsewhere. Give org/name.")
    given = settings.get("dataset_kwargs") or {}
    if not isinstance(given, Mapping):
        raise EvaluationError(f"{where}: dataset_kwargs is a mapping.")
    for key, value in given.items():
        if key not in _DATASET:
            raise EvaluationError(f"{where}: dataset_kwargs: {key!r}{nearest(str(key), _DATASET)}")
        for name in _texts_in(value):
            if not is_plain_name(name):
                raise EvaluationError(
                    f"{where}: dataset_kwargs: {key} names {name[:80]!r}, which is not inside the "
                    "dataset. For a file of your own say file: NAME beside task:."
                )


def _texts_in(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [text for one in value for text in _texts_in(one)]
    return [] if value is None else [str(value)]


def _check_metrics(metrics: Any, where: str) -> None:
    """Metrics that lm-eval does not have it fetches from a hub, as Python code."""
    import lm_eval.api.metrics  # noqa: F401  # fills the registry

    for one in metrics or []:
        if not isinstance(one, Mapping):
            raise EvaluationError(f"{where}: metric_list is a list of mappings with metric:.")
        for key, value in one.items():
            if key not in _METRIC or not _is_plain(value):
                raise EvaluationError(f"{where}: metric_list: {key!r}{nearest(str(key), _METRIC)}")
        name = one.get("metric")
        if one.get("hf_evaluate") or name not in metric_registry:
            raise EvaluationError(
                f"{where}: metric_list: {name!r} is no metric of lm-eval's own, and one from a hub "
                f"is code{nearest(str(name), list(metric_registry))}"
            )


def _check_filters(filters: Any, where: str) -> None:
    import lm_eval.filters  # noqa: F401  # fills the registry

    for one in filters or []:
        steps = one.get("filter") if isinstance(one, Mapping) else None
        for step in steps if isinstance(steps, list) else []:
            name = step.get("function") if isinstance(step, Mapping) else None
            if name not in filter_registry or name == "custom":
                raise EvaluationError(
                    f"{where}: filter_list: there is no filter {name!r}"
                    f"{nearest(str(name), list(filter_registry))}"
                )
