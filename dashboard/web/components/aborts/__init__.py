"""Aborts on pages: offers, confirmation, history and log."""
