"""The work of the commands, callable from Python."""
