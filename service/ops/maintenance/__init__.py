"""Verify, copy and clean up a store."""
