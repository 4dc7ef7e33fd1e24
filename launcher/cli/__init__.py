"""The command line: one command to a file, loaded when it is called."""
