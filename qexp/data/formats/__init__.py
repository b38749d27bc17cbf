"""Files of rows: which ones hold a split, and a reader for each format."""
