"""What operators that read Gram matrices share: the folder, its digest, and its checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from safeswap.errors import CalibrationError, PlanError, listed
from safeswap.operators.base import Operator, TensorContext
from safeswap.operators.gram_store import GramRecord, Grams, open_grams
from safeswap.operators.kernels.positive import Triangle, Wide
from safeswap.parameters import Parameter, Value
from safeswap.roles import SAFETY

GRAMS = (
    Parameter("grams", "", "the folder that safeswap calibrate wrote", Path),
    Parameter("grams_digest", "", "which matrices (filled in by safeswap)", str),
)


class CalibratedOperator(Operator):
    """An operator with a folder of Gram matrices; subclasses add ``GRAMS`` to their parameters.

    Attributes:
        how: what ``safeswap calibrate`` is to be given for it, for messages.
    """

    how: str = "--texts FILE"

    def entries(self, experts: Sequence[str]) -> Mapping[str, str]:
        """Entries of the folder that it reads → the expert whose weights each was made from."""
        return {role: role for role in experts}

    def per_output(self, entry: str) -> int:
        """How many numbers an entry has for each output of a tensor, in place of a matrix of its
        inputs; 0 where it has that.
        """
        return 0

    def check(self, settings: Mapping[str, Value], where: str) -> None:
        if not settings["grams"]:
            raise PlanError(
                f"{where}: operator {self.name} needs Gram matrices. Run safeswap calibrate … "
                f"{self.how}, and give its folder with --operator-set grams=FOLDER."
            )

    def pinned(
        self, given: Mapping[str, Value], experts: Sequence[str], where: str
    ) -> dict[str, Value]:
        folder = Path(str(given["grams"])).expanduser().resolve()
        entries = self.entries(experts)
        grams = open_grams(folder)
        if any(entry not in grams.experts for entry in entries):
            raise CalibrationError(
                f"{where}: {folder} holds matrices of {listed(grams.experts) or 'nothing'}, and "
                f"operator {self.name} reads {listed(entries)}. Run safeswap calibrate … "
                f"{self.how}, with the same -o."
            )
        digest = grams.digest(tuple(entries))
        wanted = given.get("grams_digest") or digest
        if digest != wanted:
            raise CalibrationError(
                f"{where}: the Gram matrices of {' and '.join(entries)} in {folder} are not those "
                f"that the plan was made with (digest {digest[:12]}…, plan {str(wanted)[:12]}…). "
                "Give the original folder, or plan again."
            )
        return {**given, "grams": str(folder), "grams_digest": digest}

    def check_files(self, context: TensorContext, digests: Mapping[str, str]) -> None:
        grams = grams_of(context)
        for entry, role in self.entries(context.experts).items():
            found = grams.expert(entry).weights
            if found != digests[role]:
                raise CalibrationError(
                    f"{grams.folder}: its Gram matrices of {entry} are of other weights (digest "
                    f"{found[:12]}…, checkpoint {digests[role][:12]}…). Run safeswap calibrate on "
                    "the checkpoints of this plan, into another folder."
                )
        self.records(context)

    def records(self, context: TensorContext) -> list[GramRecord] | None:
        """Every entry's matrix of the tensor; None where one has none, or never saw a token."""
        if not context.is_matrix or context.is_piece:  # no layer of its own saw its inputs
            return None
        grams = grams_of(context)
        found = [
            grams.record(entry, context.name, context.shape, self.per_output(entry))
            for entry in self.entries(context.experts)
        ]
        seen = [record for record in found if record is not None and record.rows]
        return seen if len(seen) == len(found) else None

    def whole(self, context: TensorContext) -> bool:
        return self.records(context) is not None


class OneLanguage(CalibratedOperator):
    """An operator by what the *language expert's* layers saw, on texts of several kinds.

    Attributes:
        kinds: of texts; an entry of the folder is a language and a kind, such as ``sw@harmful``.
    """

    kinds: tuple[str, ...] = ()
    experts = (2, 2)

    def entries(self, experts: Sequence[str]) -> Mapping[str, str]:
        (language,) = [role for role in experts if role != SAFETY]
        return {entry_of(language, kind): language for kind in self.kinds}

    def pinned(
        self, given: Mapping[str, Value], experts: Sequence[str], where: str
    ) -> dict[str, Value]:
        if len(experts) != 2 or SAFETY not in experts:
            raise PlanError(
                f"{where}: operator {self.name} joins the safety expert and one language expert, "
                f"not {' and '.join(experts)}. Plan each language by itself."
            )
        return super().pinned(given, experts, where)


def entry_of(role: str, kind: str) -> str:
    """The name of an expert's matrices over texts of a kind, such as ``sw@harmful``."""
    return f"{role}@{kind}"


def solved(context: TensorContext, system: Triangle, known: Wide, at: str, ways_out: str) -> Wide:
    """``known · system⁻¹``, in the places of both.

    Args:
        system: of a tensor's Gram matrices.
        known: float64 [rows, n].
        at: with which settings it was made, and ways_out: what helps, for the message.

    Raises:
        CalibrationError: it is not positive definite.
    """
    factored(context, system, at, ways_out)
    return system.solve(known)


def factored(context: TensorContext, system: Triangle, at: str, ways_out: str) -> None:
    """Factor a system in its place; arguments and errors are those of :func:`solved`."""
    try:
        system.factor()
    except np.linalg.LinAlgError as error:
        raise CalibrationError(
            f"tensor {context.name!r}: its Gram matrices leave some inputs undetermined (not "
            f"positive definite at {at}). Use a larger ridge (--operator-set ridge=…), {ways_out}."
        ) from error


def grams_of(context: TensorContext) -> Grams:
    """The folder that a tensor's operator reads."""
    return open_grams(Path(str(context.settings["grams"])))
