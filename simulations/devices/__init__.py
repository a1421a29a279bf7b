"""Edge devices on a virtual clock: profiles, availability, costs, and the timeline of a federation.

Time follows from devices, sizes and policy, never from weights. So the whole timeline (who is asked when,
from which version of the model, when the reply comes or fails) is computed before any training.
"""
