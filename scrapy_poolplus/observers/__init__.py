"""Observers of pool events: they see what happened and decide nothing."""
