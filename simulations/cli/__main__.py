"""`python -m simulations.cli` is `shoal`."""

from simulations.cli import main

main()
