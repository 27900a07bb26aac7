"""The commands: arguments in, exit code out, and the only places that call sys.exit."""
