"""The one exception that is a user's to mend."""


class UserError(Exception):
    """A mistake in input, configuration or environment.

    Its message is one sentence: what is wrong, where, and what to do. The command line prints it without a traceback
    and exits with 1. Several mistakes are several arguments, or several lines.
    """

    def __init__(self, *mistakes: str) -> None:
        super().__init__(*mistakes)
        self.mistakes = tuple(line for mistake in mistakes for line in mistake.split("\n"))

    def __str__(self) -> str:
        return "\n".join(self.mistakes)
