"""The one exception whose text is written for the user."""


class UserError(Exception):
    """Something the user can mend, told in one sentence and shown without traceback."""
