"""The console script: handles signals before anything large is imported."""

from cli.terminal import signals


def main() -> None:
    """Run the command line."""
    signals.listen()
    from cli.__main__ import main as run_main

    run_main()
