"""A search of something of one's own: to be written."""
