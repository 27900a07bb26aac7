"""cmapp: watch applications inside virtual machines and exit with their own exit codes."""

__version__ = "0.1.0"
SOFTWARE = f"cmapp/{__version__}"  # what either side calls itself
