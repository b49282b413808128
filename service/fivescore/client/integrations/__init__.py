"""Reward functions for trainers, in the form that each trainer calls.

They import a trainer only where it is installed.
"""
