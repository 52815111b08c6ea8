"""The command line: options, commands, messages, signals and exit status."""
