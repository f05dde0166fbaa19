"""The table of the stack of linear probes."""

from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from sklearn.base import BaseEstimator

import plug_sklearn
from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._tables import (
    Described,
    Labels,
    Parameters,
    Size,
    Table,
    check_count,
    list_feature_names,
    set_features,
)
from plug_sklearn.persistence._values import (
    describe_labels,
    read_labels,
    read_parameters,
)


class StackTable(Table):
    """A fitted :class:`PlugStackClassifier`."""

    kind: Literal["PlugStackClassifier"]
    parameters: Parameters
    classes: Labels
    input_shape: list[Size] = Field(min_length=1, max_length=3)
    feature_names: list[str] | None
    n_layers: Size
    n_parts: Size
    hidden_size: Size
    n_chosen: Size
    is_tuned: bool
    temperature: Annotated[float, Field(gt=0)]

    @staticmethod
    def describe(classifier: Any) -> Described:  # noqa: ANN401 - as above
        """Return what to save of a fitted estimator, besides its parameters."""
        n_layers, n_parts = classifier.weights_.shape
        n_chosen, _, hidden_size = classifier._coefficients.shape
        is_tuned = bool(np.isfinite(classifier.held_out_log_loss_).all())
        values = {
            "classes": describe_labels(classifier.classes_),
            "input_shape": list(classifier.input_shape_),
            "feature_names": list_feature_names(classifier),
            "n_layers": n_layers,
            "n_parts": n_parts,
            "hidden_size": hidden_size,
            "n_chosen": n_chosen,
            "is_tuned": is_tuned,
            "temperature": classifier.temperature_,
        }
        tensors = {
            "weights": classifier.weights_,
            "C": classifier.C_,
            "coefficients": classifier._coefficients,
            "intercept": classifier.intercept_,
        }
        if is_tuned:
            tensors["held_out_log_loss"] = classifier.held_out_log_loss_
        return values, tensors

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of the estimator."""
        n_classes = len(self.classes.values)
        n_logits = 1 if n_classes == 2 else n_classes
        of_probes = Expected((self.n_layers, self.n_parts), "float64")
        coefficients = self.n_chosen, n_logits, self.hidden_size
        expected = {
            "weights": of_probes,
            "C": of_probes,
            "coefficients": Expected(coefficients, "float64"),
            "intercept": Expected((n_logits,), "float64"),
        }
        return {
            **expected,
            **({"held_out_log_loss": of_probes} if self.is_tuned else {}),
        }

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        kind = plug_sklearn.PlugStackClassifier
        classifier: Any = read_parameters(kind, self.parameters)
        n_units = self.n_layers * self.n_parts * self.hidden_size
        check_count("input_shape", prod(self.input_shape), n_units)
        if (tensors["weights"] < 0).any():
            raise ValueError("its tensor 'weights' must not be below 0")
        n_chosen = int(np.count_nonzero(tensors["weights"]))
        check_count("n_chosen", self.n_chosen, n_chosen)
        classifier.classes_ = read_labels(self.classes.dtype, self.classes.values)
        classifier.input_shape_ = tuple(self.input_shape)
        set_features(classifier, self.input_shape[0], self.feature_names)
        classifier.weights_, classifier.C_ = tensors["weights"], tensors["C"]
        unknown = np.full_like(tensors["weights"], np.nan)
        losses = tensors.get("held_out_log_loss", unknown)
        classifier.held_out_log_loss_ = losses
        classifier.temperature_ = self.temperature
        classifier._coefficients = tensors["coefficients"]
        classifier.intercept_ = tensors["intercept"]
        return classifier
