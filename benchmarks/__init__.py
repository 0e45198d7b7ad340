"""What measures this repository, writes its pages and takes its pictures: `make bench`, `compatibility`, `algorithms`, `learn`.

The wheel leaves it out.

Imports `pipelines.demo.setup`, `tests.browser` and `tests.services`.
"""
