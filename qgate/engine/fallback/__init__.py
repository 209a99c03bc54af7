"""Keeping layers float: which, at what cost, and whether limits then hold on data that the gate does not judge by."""
