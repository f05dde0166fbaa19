"""Make a :class:`ProbedToken` of each token while an answer is written."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from plug_sklearn.generation._pieces import PieceDecoder
from plug_sklearn.generation._predictions import BatchPredictions
from plug_sklearn.generation._results import ProbedToken


class Reporter:
    """Calls ``report`` with a :class:`ProbedToken` for each new token.

    ``numbers`` are the positions of the prompts of the batch among all prompts.
    """

    def __init__(
        self,
        report: Callable[[ProbedToken], None],
        numbers: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.report = report
        self.numbers = numbers
        self.decoders = [PieceDecoder(tokenizer) for _ in numbers]

    def report_token(
        self, predictions: BatchPredictions, row: int, position: int
    ) -> None:
        """Report the token of a row at a position of its answer."""
        answer, decoder = predictions.answers[row], self.decoders[row]
        piece = decoder.add(answer.ids[position])
        if answer.reason is not None:
            piece += decoder.finish()
        seen = predictions.show(row, position + 1).items()
        before = predictions.show_prompt(row).items()
        self.report(
            ProbedToken(
                prompt=self.numbers[row],
                position=position,
                token_id=answer.ids[position],
                token=piece,
                probabilities={name: found[-1].copy() for name, found in seen},
                prompt_probabilities={name: found.copy() for name, found in before},
                stopped_by=answer.reason,
            )
        )
