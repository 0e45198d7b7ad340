"""The net that answers: forward passes, distributions, draws. Imports nothing else of the server."""
