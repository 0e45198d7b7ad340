"""The nodes of the trading pipeline, one file each, in the order of a step."""

from policyserver.pipelines.nodes.episode_node import EpisodeNode
from policyserver.pipelines.nodes.execution_node import ExecutionNode
from policyserver.pipelines.nodes.market_node import MarketNode
from policyserver.pipelines.nodes.policy_node import PolicyNode
from policyserver.pipelines.nodes.portfolio_node import PortfolioNode
from policyserver.pipelines.nodes.reward_node import RewardNode
from policyserver.pipelines.nodes.signal_node import SignalNode

__all__ = ["EpisodeNode", "ExecutionNode", "MarketNode", "PolicyNode", "PortfolioNode", "RewardNode", "SignalNode"]
