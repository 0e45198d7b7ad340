"""The process that learns: Ray's driver. It starts the serving actors, trains, records, saves, and ends in order.

May import everything of the server but the episode core and the served environments (`episodes/`, `external_env/`).
"""
