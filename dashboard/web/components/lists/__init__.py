"""Filters, pages and empty states of lists."""
