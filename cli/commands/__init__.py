"""The Typer commands: parse, call `cli.workflow`, print."""
