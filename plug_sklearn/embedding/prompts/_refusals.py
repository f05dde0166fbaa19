"""Texts that cannot be read, and where in X they are."""


class RefusedTextError(ValueError):
    """An error about one text.

    Parameters
    ----------
    text : str
        The text.
    message : str
        What is wrong with it, without a full stop.
    """

    def __init__(self, text: str, message: str) -> None:
        super().__init__(f"{message}.")
        self.text = text
        self.message = message

    def at(self, position: int) -> ValueError:
        """Give the same error with the text's position, for whoever knows X."""
        return ValueError(f"{self.message}, at position {position}.")
