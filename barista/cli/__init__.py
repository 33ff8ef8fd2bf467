"""The command line: one file a command, `main` finds it, `arguments` holds what they share."""
