"""Money: the settlement rules, the conditions under which honesty pays best, and a simulation of the market."""
