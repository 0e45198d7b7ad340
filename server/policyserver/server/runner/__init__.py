"""The process that serves: RLlib's env runner, and the thread with the asyncio loop that its ways in share.

May import everything of the server but `daemon/`, and of `policyserver.v1` what the serving loop needs.
"""
