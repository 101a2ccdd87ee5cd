"""How sentences are put that pages, commands and refusals share."""


def counted(n: int, noun: str) -> str:
    """A number and its noun: "1 picture", "2 pictures"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
