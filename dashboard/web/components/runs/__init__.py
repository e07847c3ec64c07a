"""Runs and stages on pages: rows, cells, cards, charts and panels."""
