"""Faults: what may go wrong on the wire, as data, and the machinery to make it go wrong under every operation."""
