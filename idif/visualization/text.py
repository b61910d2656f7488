"""Numbers and sentences as terminals, reports and web pages show them."""


def percent(value: float | None, undefined: str = "-") -> str:
    """A fraction in percent: 0.9713 -> 97.1; ``undefined`` where there is none."""
    return undefined if value is None else f"{100 * value:.1f}"


def as_sentence(text: str) -> str:
    """``text`` with a capital first letter and one full stop at its end."""
    return text[:1].upper() + text[1:].rstrip(".") + "."
