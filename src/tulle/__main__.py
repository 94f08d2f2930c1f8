"""`python -m tulle`: the command line."""

from tulle.cli import main

main()
