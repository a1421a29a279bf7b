"""What stands between a site's rows and the server: which questions are answered, how often, at what cost.

Nothing here depends on what a request says about privacy: the site's own scenario, its account and its record
of answers decide. A simulation has no kernel; it composes and reports (`server/privacy`).
"""

from shoal.clients.kernel.account import PopulationAccount, Use

__all__ = ["PopulationAccount", "Use"]
