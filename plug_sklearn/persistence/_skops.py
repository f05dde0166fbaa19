"""What skops is to trust, beyond what it trusts by itself."""

#: Types for the ``trusted`` parameter of ``skops.io.load``: of a probe, its own class
#: alone, since it holds its network as numbers and arrays.
SKOPS_TRUSTED = (
    "plug_sklearn.classifiers._cnn.PlugCNNClassifier",
    "plug_sklearn.classifiers._mlp.PlugMLPClassifier",
    "plug_sklearn.features._aggregator.LayerAggregator",
)
