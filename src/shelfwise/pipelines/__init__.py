"""Whole jobs, each one function that a command or a Python caller starts: train, evaluate, compare, predict, demo."""
