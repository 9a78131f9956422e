"""Faces as arrays: readers, synthetic faces, audit and the split protocol. Loads no torch."""
