"""YAML that a person wrote, read strictly: plans, and the files of sweeps and searches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from safeswap.errors import PlanError


def read_yaml(path: Path) -> Any:
    """Plain values from strict YAML: no key twice, ``no`` is a language, 1e-3 is a number.

    Raises:
        PlanError: it cannot be read, or is not YAML.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = f"is not YAML ({error.context}: {error.problem})" if error.context else error.problem
        raise PlanError(f"{path}{line}: {what}. Fix that line.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: is not YAML ({error}). Fix it.") from error


class _Loader(yaml.SafeLoader):
    """Strict YAML: no duplicate keys, ``no`` is the language and not False, 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if not isinstance(key, str):
                problem = f"the key {key!r} is not a name; quote it"
                raise yaml.MarkedYAMLError(None, None, problem, key_node.start_mark)
            if key in seen:
                mark = key_node.start_mark
                raise yaml.MarkedYAMLError(None, None, f"the key {key!r} is given twice", mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
