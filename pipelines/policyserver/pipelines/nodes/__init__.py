"""The nodes of the trading pipeline, one file each, in the order of a step."""
