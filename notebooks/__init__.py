"""Executed tours of the library. No logic of their own."""
