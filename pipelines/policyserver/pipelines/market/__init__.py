"""The market without threads, clocks and sockets: prices, accounts, orders, rewards as arrays; the same input gives the same bits.

Imports numpy and `policyserver.common.settings` alone; pyarrow and exchange_calendars in `files` and `calendars`.
"""
