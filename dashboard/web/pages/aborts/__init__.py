"""Pages about aborts: of one run, of many, and their log."""
