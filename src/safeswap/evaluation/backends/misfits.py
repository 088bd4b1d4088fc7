"""torchvision and its kin beside a torch that they were not built for: said in our words.

transformers, vLLM and lm-eval import them wherever they are installed, for pictures and sound, and
fail far from the cause: ``operator torchvision::nms does not exist``, a library that does not load,
``Failed to import transformers.models…``. Nothing here needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from safeswap.errors import EvaluationError

ADDONS = ("torchvision", "torchaudio", "torchcodec")
"""Packages that are compiled against one release of torch, and that others import if they can."""


@contextmanager
def misfits_in_words() -> Iterator[None]:
    """Turn an error that comes from a package of ``ADDONS`` into ours; others pass as they are.

    Raises:
        EvaluationError: names the package, both versions and the remedy.
    """
    try:
        yield
    except Exception as error:
        said = misfit(error)
        if said is None:
            raise
        raise EvaluationError(said) from error


def misfit(error: BaseException) -> str | None:
    """What to tell the user where an error, or one behind it, comes from a package that does not
    fit; None for any other error.

    A package is accused only if it took part in the error and cannot be imported by itself.
    """
    if not any(_takes_part(one, name) for one in _behind(error) for name in ADDONS):
        return None
    broken = {name: why for name in ADDONS if (why := _why_broken(name)) is not None}
    if not broken:
        return None
    name, why = next(iter(broken.items()))
    return (
        f"{name} {_version(name)} does not fit torch {_version('torch')} ({why}), and it is "
        "imported wherever it is installed. Nothing here needs it: pip uninstall "
        f"{' '.join(broken)}; or install the {name} that was built for this torch, from the same "
        "index as torch."
    )


def _behind(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was raised from or after."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _takes_part(error: BaseException, name: str) -> bool:
    """Whether an error names a package, or was raised below its files."""
    return name in str(error) or name in _packages(error.__traceback__)


def _packages(trace: TracebackType | None) -> Iterator[str]:
    """The folders of the files that an error passed through."""
    while trace is not None:
        yield from Path(trace.tb_frame.f_code.co_filename).parts
        trace = trace.tb_next


def _why_broken(name: str) -> str | None:
    """The first line of what importing an installed package raises; None where it is whole."""
    try:
        if find_spec(name) is None:
            return None
        import_module(name)
    except Exception as error:  # a C library's: whatever it likes
        first = (str(error).splitlines() or [""])[0]
        return f"{type(error).__name__}: {first}"
    return None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of unknown version"
