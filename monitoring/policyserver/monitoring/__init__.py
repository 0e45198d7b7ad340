"""Points, the sinks that record them, and what shows them. Of the product it imports only files of `policyserver.common`."""
