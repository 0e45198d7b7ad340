"""What can be chosen about an episode: actions, observers, rewards, ends; each kind in a folder, each part in a file.

Imports `common.settings` and `pipelines.market`.
"""
