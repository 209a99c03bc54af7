"""A result as one HTML file, with plots and pictures (the extra `html`)."""
