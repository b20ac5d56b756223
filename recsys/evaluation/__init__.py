"""Full-catalogue ranking, metrics, groups of users and significance."""
