"""How clients of a benchmark ask: as a plant or a game in real time would, which no learner holds up."""

from policyserver.client import ClientConfig

REAL_TIME = ClientConfig(waits_for_learner=False)
