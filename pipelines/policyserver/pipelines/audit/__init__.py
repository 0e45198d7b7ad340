"""Checks of a whole pipeline: does it know its future, does it earn where nothing can be earned, does its warm-up matter."""
