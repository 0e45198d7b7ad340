"""The process that learns: Ray's driver. It starts the serving actors, trains, records, saves, and ends in order.

May import everything of the server except what runs only inside a serving actor (`runner/`, `episodes/`).
"""
