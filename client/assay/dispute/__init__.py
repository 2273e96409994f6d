"""Disputes: the trees a player needs, and a player that turns a case's state into the next move. No chain in here."""
