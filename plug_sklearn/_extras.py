"""Optional dependencies, and what is said where one is not installed."""

from importlib.util import find_spec

#: The packages that each extra brings, by the names they are imported under.
EXTRAS = {
    "adapters": ("peft",),
    "gguf": ("gguf", "accelerate"),
    "multi-gpu": ("accelerate",),
    "plots": ("matplotlib",),
    "quantization": ("accelerate", "bitsandbytes"),
}


def require_extra(extra: str, user: str) -> None:
    """Check that the packages of an extra are installed.

    Parameters
    ----------
    extra : str
        One of ``EXTRAS``.
    user : str
        What needs it, to begin the message with.

    Raises
    ------
    ImportError
        If a package is missing; the message says how to install the extra.
    """
    missing = [package for package in EXTRAS[extra] if find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        are = "which is" if len(missing) == 1 else "which are"
        raise ImportError(
            f"{user} needs {names}, {are} not installed: "
            f"pip install 'plug_sklearn[{extra}]'",
            name=missing[0],
        )
