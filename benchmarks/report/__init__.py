"""The documents that are made from results and settings: what `fedrec results` and `fedrec settings` write."""
