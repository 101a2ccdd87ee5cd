"""What can go wrong with the embedded engines."""


class EngineFailed(Exception):
    """An embedded engine could not be started; the message says why and what to do."""
