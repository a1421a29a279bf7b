"""Tables of many runs of one scenario: privacy against utility, attacks against defences."""
