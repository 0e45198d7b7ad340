"""The load generators, which run in processes of their own beside the server that is measured.

Imports `client`.
"""
