"""cmapp: watch applications inside virtual machines and exit with their own exit codes."""

__version__ = "0.1.0"
