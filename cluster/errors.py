"""The two ways a Fournil command ends badly, each with its exit code.

A `RequestError` says that what was asked for is wrong (exit 2) and is raised before work starts;
a `WorkError` says that the work itself failed (exit 1). Both carry one line that says what to do.
"""


class FournilError(Exception):
    """Base of the errors that the command line prints as one line, without a traceback."""

    exit_code = 1


class WorkError(FournilError):
    """The work was right to ask for and failed while running."""

    exit_code = 1


class RequestError(FournilError):
    """The request was wrong: a bad recipe, a missing file, an address nobody answers at."""

    exit_code = 2
