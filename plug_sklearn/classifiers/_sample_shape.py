"""Read the layers, parts and hidden units of samples from their shape."""


def read_geometry(
    input_shape: tuple[int, ...],
    n_layers: int | None,
    n_parts: int | None,
    owner: str,
) -> tuple[int, int, int]:
    """Read numbers of layers, parts and hidden units.

    ``n_layers`` and ``n_parts`` are the parameters of the classifier ``owner``, which
    divide samples of one axis.
    """
    if len(input_shape) == 1:
        return _unflatten(input_shape[0], n_layers or 1, n_parts or 1, owner)
    if len(input_shape) > 3:
        raise ValueError(
            f"X given to {owner} must be (n, layers, parts, hidden), "
            "(n, layers, hidden) or (n, features). Got samples of shape "
            f"{input_shape} instead."
        )
    found_layers, *parts, hidden_size = input_shape
    found_parts = parts[0] if parts else 1
    for name, wanted, found in (
        ("n_layers", n_layers, found_layers),
        ("n_parts", n_parts, found_parts),
    ):
        if wanted not in (None, found):
            raise ValueError(
                f"The {name!r} parameter of {owner} must be None or {found}, as "
                f"in X. Got {wanted} instead."
            )
    return found_layers, found_parts, hidden_size


def _unflatten(
    n_features: int, n_layers: int, n_parts: int, owner: str
) -> tuple[int, int, int]:
    if n_features % (n_layers * n_parts):
        raise ValueError(
            f"The 'n_layers' and 'n_parts' parameters of {owner} must divide the "
            f"{n_features} features of X. Got {n_layers} and {n_parts} instead."
        )
    return n_layers, n_parts, n_features // (n_layers * n_parts)
