"""`make algorithms`: each algorithm learns alone and over gRPC, on the same seeds; writes docs/algorithms.md from build/learning.

The players import the client alone; the rest the server's configuration, too.
"""
