"""How much of a graph's work a runtime really does in integers: one file for each way to find out."""
