"""Invented bytes for everything that reads bytes: what `./run fuzz` runs, and the tests a little of."""
