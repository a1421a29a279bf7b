"""Statistics as fixed-length vectors of integers, of which the server needs only the sum over clients.

Both sides derive the layout from the schema and the scenario (`plan`), so that the vectors can be summed
under masks, and so that the sensitivity of the sum to one row or one client is known (`noise`).
"""
