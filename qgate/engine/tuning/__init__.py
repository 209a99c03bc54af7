"""Searching the recipe that keeps most of float32's accuracy, on data that the gate does not judge by."""
