"""The one exception that is a user's to mend."""


class UserError(Exception):
    """A mistake in input, configuration or environment.

    Its message is one sentence: what is wrong, where, and what to do. The command line prints it without a traceback
    and exits with 1.
    """
