"""`make compatibility`: each algorithm on each kind of space and model; writes docs/compatibility.md from build/compatibility.

Imports the client, and of the server its configuration and what builds and trains an algorithm.
"""
