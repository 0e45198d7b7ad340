"""The client of the policy server. Imports policyserver only; needs neither ray nor torch."""
