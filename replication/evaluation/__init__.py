"""Rows from images: Tables 1 to 5, ablations, uncertainty."""
