"""What the server guarantees and charges: the ledger of rounds, and the statement of the guarantee."""
