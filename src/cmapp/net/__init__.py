"""Reaching the other side: addresses, TLS and the link."""
