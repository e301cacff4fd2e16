"""Trainers that run a method's passes: one module each, imported by the user.

No trainer's library is imported before its module is, and ``import flatmin`` imports
none of them.
"""
