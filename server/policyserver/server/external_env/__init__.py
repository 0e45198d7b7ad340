"""The way in of an ExternalEnv in the serving process: its calls become rows of the episode core.

Imports policyserver.common; of the server the episode core and the configuration.
"""
