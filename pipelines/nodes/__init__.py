"""The nodes of the trading pipeline, one file each, in the order of a step."""

from pipelines.nodes.episode_node import EpisodeNode
from pipelines.nodes.execution_node import ExecutionNode
from pipelines.nodes.market_node import MarketNode
from pipelines.nodes.policy_node import PolicyNode
from pipelines.nodes.portfolio_node import PortfolioNode
from pipelines.nodes.reward_node import RewardNode
from pipelines.nodes.signal_node import SignalNode

__all__ = ["EpisodeNode", "ExecutionNode", "MarketNode", "PolicyNode", "PortfolioNode", "RewardNode", "SignalNode"]
