"""What the server promises and charges: the ledger of rounds, and the statement of the guarantee."""
