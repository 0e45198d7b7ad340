"""What measures this repository, writes its pages and takes its pictures: `make bench`, `compatibility`, `algorithms`, `learn`.

Imports every part of `policyserver`, and of `tests` the files that start other programs; no part imports it, and the wheel leaves it out.
"""
