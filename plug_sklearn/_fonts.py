"""Tokens in pictures: their font, and letters that no font has."""

from functools import lru_cache

#: Font of tokens. The fonts of matplotlib's settings draw what it lacks.
TOKEN_FONT = "DejaVu Sans Mono"


def list_token_fonts() -> list[str]:
    """List the fonts that tokens are drawn with, the preferred one first."""
    from matplotlib import rcParams

    return [TOKEN_FONT, *rcParams["font.family"]]


def replace_missing_letters(token: str) -> str:
    """Replace letters that all fonts of tokens lack."""
    fonts = [_list_letters(font) for font in list_token_fonts()]
    return "".join(
        letter
        if any(ord(letter) in letters for letters in fonts)
        else "\N{REPLACEMENT CHARACTER}"
        for letter in token
    )


@lru_cache(maxsize=8)
def _list_letters(font: str) -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    # A font's name alone would be read as a pattern, in which a dash means a size.
    path = findfont(FontProperties(family=[font]))
    return frozenset(get_font(path).get_charmap())
