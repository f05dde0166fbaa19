"""Tables of the functions that calibrate decision values."""

from typing import Any, Literal

import numpy as np
from sklearn.isotonic import IsotonicRegression

from plug_sklearn._sklearn import CALIBRATORS
from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._tables import Described, Size, Table, check_count


class CalibratorTable(Table):
    """The function that maps a decision value of one class to its probability."""

    kind: Literal["isotonic", "sigmoid", "temperature"]
    dtype: Literal["float32", "float64"]
    #: Length of each tensor: the thresholds of an isotonic function, or 1.
    length: Size
    increasing: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tensors."""
        return {
            "isotonic": ("X_thresholds", "y_thresholds"),
            "sigmoid": ("a", "b"),
            "temperature": ("beta",),
        }[self.kind]

    @staticmethod
    def describe(calibrator: Any, kind: str) -> Described:  # noqa: ANN401 - scikit-learn's own
        """Return what to save of a calibrator."""
        is_isotonic = kind == "isotonic"
        values: dict[str, Any] = {
            "kind": kind,
            "increasing": bool(calibrator.increasing_) if is_isotonic else True,
        }
        table = CalibratorTable(dtype="float64", length=1, **values)
        tensors = {
            name: np.atleast_1d(getattr(calibrator, f"{name}_")) for name in table.names
        }
        first = next(iter(tensors.values()))
        values |= {"dtype": first.dtype.name, "length": len(first)}
        return values, tensors

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of the calibrator."""
        return dict.fromkeys(self.names, Expected((self.length,), self.dtype))

    def restore(self, tensors: Arrays, device: str) -> Any:  # noqa: ANN401 - scikit-learn's own
        """Make the fitted calibrator."""
        if self.kind == "isotonic":
            X, y = tensors["X_thresholds"], tensors["y_thresholds"]
            if (np.diff(X) <= 0).any() or not ((y >= 0) & (y <= 1)).all():
                raise ValueError("its thresholds must increase, to values in [0, 1]")
            isotonic: Any = IsotonicRegression(out_of_bounds="clip")
            isotonic.X_thresholds_, isotonic.y_thresholds_ = X, y
            isotonic.X_min_, isotonic.X_max_ = X[0], X[-1]
            isotonic.increasing_ = self.increasing
            isotonic._build_f(X, y)
            return isotonic
        check_count("calibrator's values", self.length, 1)
        if self.kind not in CALIBRATORS:
            raise ValueError(
                f"its calibration by {self.kind} needs a newer scikit-learn"
            )
        calibrator = CALIBRATORS[self.kind]()
        for name in self.names:
            setattr(calibrator, f"{name}_", tensors[name][0])
        return calibrator
