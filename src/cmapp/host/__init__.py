"""The host's side: one manager, which launches, watches and reports on one application in a guest."""
