"""`python -m fedrec` is `fedrec`."""

from fedrec.cli import main

main()
