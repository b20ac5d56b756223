"""Attacks on a federation, with the defences against them off and on."""
