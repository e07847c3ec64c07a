"""Responses: errors, refusals, JSON, parts of a page, and those that wait."""
