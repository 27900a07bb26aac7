"""Hostile peers by the thousand on the loopback, what twenty managers notice of them, and a judge of that."""
