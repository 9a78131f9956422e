"""The report of a search: one page that opens without a network, and its plots as images."""
