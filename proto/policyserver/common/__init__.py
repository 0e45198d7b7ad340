"""What both ends of the contract share: arrays, spaces, errors, settings, addresses.

Imports `v1`.
"""
