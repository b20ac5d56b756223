"""Generated datasets: the demo's films and users, and random tables of any size."""
