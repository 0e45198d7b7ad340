"""The gRPC way in: addresses, messages to rows and back, the stream, the unary calls.

May import `policyserver.common`, `policyserver.v1`; of the server the episode core, `config.serving_config` and `training_report`.
"""
