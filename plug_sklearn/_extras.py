"""Optional dependencies, and the error message if one is not installed."""

from importlib.util import find_spec

#: The packages of each extra, by their names in import statements.
EXTRAS = {
    "adapters": ("peft",),
    "gguf": ("gguf", "accelerate"),
    "multi-gpu": ("accelerate",),
    "plots": ("matplotlib",),
    "quantization": ("accelerate", "bitsandbytes"),
}


def require_extra(extra: str, user: str) -> None:
    """Raise an ImportError, which names ``user``, if a package of an extra is missing.

    The message says how to install the extra.
    """
    missing = [package for package in EXTRAS[extra] if find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        are = "which is" if len(missing) == 1 else "which are"
        raise ImportError(
            f"{user} needs {names}, {are} not installed. Run 'pip install "
            f"{' '.join(missing)}', or install plug_sklearn with its extra [{extra}].",
            name=missing[0],
        )
