"""What operators that read Gram matrices share: the folder, its digest, and its checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from safeswap.errors import CalibrationError, PlanError
from safeswap.operators.base import Operator, TensorContext
from safeswap.operators.gram_store import GramRecord, Grams, open_grams
from safeswap.operators.kernels.positive import Wide, factor, solve
from safeswap.parameters import Parameter, Value

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
        digest = open_grams(folder).digest(tuple(entries))
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
            grams.record(entry, context.name, context.shape)
            for entry in self.entries(context.experts)
        ]
        seen = [record for record in found if record is not None and record.rows]
        return seen if len(seen) == len(found) else None

    def whole(self, context: TensorContext) -> bool:
        return self.records(context) is not None


def solved(context: TensorContext, system: Wide, known: Wide, at: str, ways_out: str) -> Wide:
    """``known · system⁻¹``, in the places of both.

    Args:
        system: float64 [n, n], symmetric: of a tensor's Gram matrices.
        known: float64 [rows, n].
        at: with which settings it was made, and ways_out: what helps, for the message.

    Raises:
        CalibrationError: it is not positive definite.
    """
    try:
        return solve(factor(system), known)
    except np.linalg.LinAlgError as error:
        raise CalibrationError(
            f"tensor {context.name!r}: its Gram matrices leave some inputs undetermined (not "
            f"positive definite at {at}). Use a larger ridge, e.g. --operator-set ridge=0.001, "
            f"{ways_out}."
        ) from error


def grams_of(context: TensorContext) -> Grams:
    """The folder that a tensor's operator reads."""
    return open_grams(Path(str(context.settings["grams"])))
