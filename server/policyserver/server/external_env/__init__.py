"""The way in of an ExternalEnv in the serving process: its calls become rows of the episode core.

May import `policyserver.common`; of the server the episode core, `config.serving_config` and `runner.serving_loop`.
"""
