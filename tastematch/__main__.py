"""`python -m tastematch` is the `tastematch` command."""

from tastematch.cli import main

main()
