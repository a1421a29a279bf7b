"""Statistics as fixed-length vectors of integers, of which the server needs the sum over clients only.

Both sides derive what stands where from the schema and the scenario (`plan`), so that the vectors can be
added under masks, and so that it is known how far one row or one client can move the sum (`noise`).
"""
