"""The board: which pipelines a page of it lists, and their rows."""
