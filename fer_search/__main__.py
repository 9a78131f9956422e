"""`python -m fer_search` is the command line."""

from fer_search.cli import main

main()
