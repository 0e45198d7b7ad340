"""The policy server. Below `policyserver.server` lie its two processes and what they are made of.

daemon/        the process that learns: Ray's driver, checkpoints, the record
runner/        the process that serves: RLlib's env runner, and the loop on which the ways in and the episode core live
grpc_front/, external_env/   the ways in
episodes/      the episode core
policies/      what decides actions
config/        the configuration, and RLlib's made from it
At this level lies what both processes use. Imports policyserver.common, policyserver.v1 and policyserver.monitoring; ray and torch are
imported only here.
"""
