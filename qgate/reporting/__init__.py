"""How a result reaches a reader: console, files, progress."""
