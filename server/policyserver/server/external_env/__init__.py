"""The way in of an ExternalEnv in the serving process: its calls become rows of the episode core.

Imports `common` and `server.episodes`.
"""
