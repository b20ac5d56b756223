"""The lab of attacks: what an attacker learns or does, with each defence on and off."""
