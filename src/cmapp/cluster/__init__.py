"""Cluster managers: the guest package, and what Pacemaker, Serviceguard and systemd take of it."""
